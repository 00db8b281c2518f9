"""Every schedule with every solver at every number of evaluations, on Gaussians, on 25 modes and on images."""
