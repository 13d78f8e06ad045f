"""Plans once: ``plan_once.py STORE MODELS``; fails unless there is nothing to do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.wants_everything import request

from benchmarks.bench.many_manifests import manifests_of
from builders.planning.plan import plan_farm
from zoo.repository.repository import Repository
from zoo.stores import LocalStore

if __name__ == "__main__":
    store, models = sys.argv[1:]
    plan = plan_farm(Repository(LocalStore(Path(store))), request(manifests_of(int(models))))
    assert set(plan.total.actions) == {"nothing"}, plan.total.actions
