"""``python -m benchmarks.hostile``: broken and forged input of every kind, each trial in a process of its own.

A trial changes something at random: a plan, the tensors of a start or a profile, arrays, images, statistics, a
checkpoint, cells, conditions, shards, archives, a table, Zarr, a pickled or exported network, the settings of a
scheduler, a command line, or arguments of a function. Some files carry what would run a command if they were unpickled,
and some archives entries that lie outside of it.

It passes if it ends in success or in a HeadstartError, and a command in an exit code of its own with one line on
standard error, within 2 GB of memory beyond the process's own and 20 seconds of a processor; if nothing of a file was
executed; and if nothing was written outside of the folder that it worked in. Every trial is a function of its kind and
its number.
"""
