"""A short soak. `make soak-mutants` checks that it can fail."""

from integration.controller.soak.actions import Action, Chooser
from integration.controller.soak.model import AccountSecret, Model, Namespace
from integration.controller.soak.mutants import soak


def test_the_system_matches_the_model_whatever_fails() -> None:
    done = soak("--seconds", "60")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_a_seed_repeats_the_actions() -> None:
    model = Model({"soak-a": Namespace(1)}, {("soak-a", "x"): AccountSecret("X", None, 1)})

    def choices(seed: int) -> list[Action]:
        chooser = Chooser(seed)
        return [chooser.choose(model) for _ in range(100)]

    assert choices(1) == choices(1) != choices(2)
