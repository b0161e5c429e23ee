"""Linear heads with losses of their own on six inner layers, weighted by 0.3, under gradient descent and under Adam."""

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.rescue import CRITERION, CURED, SIGMOID, SMALL, Rescue
from experiments.claims.verdict import Condition, Verdict, gains

PATIENTS = (SIGMOID, SMALL)
HEADS, ADAM = ("auxiliary_loss", {"heads": 6}), ("optimizer", {"name": "adam"})
TRIAL = Rescue(PATIENTS, {"6 heads": HEADS, "Adam": ADAM, "6 heads and Adam": [HEADS, ADAM]})


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for patient in PATIENTS:
        for remedy, over in (("6 heads", "untreated"), ("6 heads and Adam", "Adam")):
            gain = gains(outcomes, f"{patient}, {remedy}", f"{patient}, {over}")
            conditions.append(Condition(f"{remedy} over {over}, {patient}", gain, CURED))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="Auxiliary losses on inner layers ease vanishing gradients.",
    articles=("000",),
    criterion=CRITERION,
    measure=TRIAL.measure,
    judge=judge,
)
