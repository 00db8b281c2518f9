"""Plans as repositories of the Hugging Face Hub, by local folders in its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from headstart.errors import ArtefactError
from headstart.plan import Plan
from headstart.solver import Heun
from tests.cases import TARGET
from tests.plan.cases import make


@pytest.fixture
def plan():
    return make("gaussian", Heun())


class Hub:
    """Repositories as folders, with the cache's layout of links to blobs."""

    def __init__(self, place: Path) -> None:
        self.place, self.told = place, []

    def create_repo(self, **options):
        self.told.append(options)
        return SimpleNamespace(repo_id=f"someone/{options['repo_id']}")

    def upload_folder(self, *, repo_id, folder_path, **options):
        self.told.append(options)
        shutil.copytree(folder_path, self.place / repo_id)
        return SimpleNamespace(commit_url=f"hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id, *, allow_patterns, **options):
        if not (self.place / repo_id).is_dir():
            raise FileNotFoundError(f"no repository {repo_id}")
        cache = self.place / "cache"
        cache.mkdir(exist_ok=True)
        for name in allow_patterns:
            (cache / name).symlink_to(self.place / repo_id / name)
        return str(cache)


def test_a_plan_comes_back_from_where_it_was_pushed(plan, tmp_path):
    hub = Hub(tmp_path)
    assert plan.push_to_hub("mine", private=True, token="t", api=hub) == "hub/someone/mine/commit/1"
    assert sorted(file.name for file in (tmp_path / "someone" / "mine").iterdir()) == [
        "README.md",
        "plan.json",
        "tensors.safetensors",
    ]
    assert (hub.told[0]["private"], hub.told[1]["token"]) == (True, "t")
    again = Plan.from_pretrained("someone/mine", api=hub)
    assert torch.equal(again.sample(TARGET, 5), plan.sample(TARGET, 5))
    with pytest.raises(ArtefactError, match="no repository someone/else"):
        Plan.from_pretrained("someone/else", api=hub)


def test_a_folder_with_a_card_is_a_plan_and_may_be_replaced(plan, tmp_path):
    for _ in range(2):
        plan.save_pretrained(tmp_path / "plan", repo_id="someone/mine")
    assert repr(Plan.from_pretrained(tmp_path / "plan")) == repr(Plan.load(tmp_path / "plan")) == repr(plan)
    card = (tmp_path / "plan" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: headstart\n")
    for part in ('from_pretrained("someone/mine")', plan.explain(), plan.citation(), f"{plan.horizon:.4g}"):
        assert part in card
    (tmp_path / "plan" / "README.md").write_text("mine")
    with pytest.raises(ArtefactError, match=r"README\.md"):
        plan.save_pretrained(tmp_path / "plan")
