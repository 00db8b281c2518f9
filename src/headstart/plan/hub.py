"""Plans on the Hugging Face Hub, by the conventions of its library: a folder with the plan and a model card.

Nothing in such a repository can execute: it holds ``plan.json``, ``tensors.safetensors`` and ``README.md``.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headstart.errors import ArtefactError
from headstart.extras import require
from headstart.files import atomic_write
from headstart.plan.base import Plan

__all__ = ["card", "from_pretrained", "push_to_hub", "save_pretrained"]

#: The files of a plan.
FILES = ["plan.json", "tensors.safetensors"]

#: The first lines of a card, by which one of ours is known.
HEADER = "---\nlibrary_name: headstart\n"


def _hub() -> Any:
    return require("huggingface_hub", "hub", "the Hub")


def card(plan: Plan, repo_id: str | None = None) -> str:
    """The model card of a plan: what it is, how it is used, why it was chosen and what to cite."""
    name = repo_id or "FOLDER"
    levels = ", ".join(f"{sigma:.4g}" for sigma in plan.schedule.sigmas)
    return f"""{HEADER}tags:
- diffusion
- few-step-sampling
- initialization
- noise-schedule
---

# A plan of {plan.nfe} network evaluations

It starts from a {plan.initialization.name} law at sigma = {plan.horizon:.4g}, for samples of shape
{plan.initialization.shape}, visits the levels {levels}, and moves by {plan.solver!r}. It holds no network: it samples
any denoiser of the same data, in the same units.

```python
from headstart import Plan

plan = Plan.from_pretrained("{name}")
samples = plan.sample(denoiser, 16)
```

## Why it was chosen

```text
{plan.explain()}
```

## What to cite

```bibtex
{plan.citation()}
```
"""


def save_pretrained(plan: Plan, folder: str | Path, repo_id: str | None = None) -> None:
    """Write a plan and its card into a folder. An older plan with its card is replaced, and nothing else.

    Raises:
        ArtefactError: if something else is there, or the folder cannot be written.
    """
    readme = Path(folder) / "README.md"
    if readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        readme.unlink()
    plan.save(folder)
    atomic_write(card(plan, repo_id).encode(), readme)


def push_to_hub(
    plan: Plan, repo_id: str, *, commit_message: str, private: bool | None, api: Any, **options: Any
) -> str:
    """Upload a plan and its card, with the arguments of :meth:`headstart.plan.Plan.push_to_hub`."""
    api = _hub().HfApi() if api is None else api
    token = options.get("token")
    repo = api.create_repo(repo_id=repo_id, private=private, token=token, repo_type="model", exist_ok=True)
    name = getattr(repo, "repo_id", repo_id)
    with TemporaryDirectory() as place:
        folder = Path(place) / "plan"
        save_pretrained(plan, folder, name)
        done = api.upload_folder(
            repo_id=name, folder_path=str(folder), repo_type="model", commit_message=commit_message, **options
        )
    return str(getattr(done, "commit_url", done))


def from_pretrained(name_or_path: str | Path, *, api: Any, **options: Any) -> Plan:
    """The plan of a folder or of a repository, with the arguments of :meth:`headstart.plan.Plan.from_pretrained`."""
    if Path(name_or_path).is_dir():
        return Plan.load(name_or_path)
    api = _hub() if api is None else api
    try:
        folder = api.snapshot_download(str(name_or_path), allow_patterns=FILES, library_name="headstart", **options)
    except Exception as error:  # the network and the Hub fail in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtefactError(f"{name_or_path} is no folder, and cannot be had from the Hub ({reason})") from error
    return Plan.load(folder)
