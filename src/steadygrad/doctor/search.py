"""Try prescriptions by short trainings, and choose one by outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from steadygrad.doctor.apply import apply
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.prescribe import prescribe, rationale
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.trials import Answer, Patients, TrainTask, problem_of, run_train_task
from steadygrad.doctor.yardstick import Yardstick
from steadygrad.records import Diagnosis, Outcome, Prescription, Step, Trial
from steadygrad.training import TrainingSetup

__all__ = ["choose", "search", "train_longest"]

# Successive halving (Jamieson and Talwalkar 2016): all prescriptions train for the first share of the planned steps,
# the best of them afresh for the second.
FIRST_SHARE, SECOND_SHARE = 1 / 20, 1 / 5
FIRST_LEAST, SECOND_LEAST = 10, 40  # steps that a comparison needs
# Where the best has come less than this share of the way to a perfect answer, that tells nothing: some networks, with
# embeddings above all, stay where they are for a long time before they take off. Then the best train to the end, one
# after the other until one learns, the boldest first: larger steps leave a plateau sooner.
LITTLE = 0.1
FINALISTS = 2
# A smaller change goes on beside the best one if it has come this share of the best one's way above chance.
CLOSE = 0.75
# Where it is still far from perfect, the best one also trains for this many times as long.
LONGER = 2
# Where nothing comes half as far as a shallow network, the boldest change trains for this many times as long.
HALFWAY, LONGEST = 0.5, 4
# The set-up as it came goes on only if it is not left behind by more than this share of the best.
IN_REACH = 0.5
# The winner is also tried with its optimizer's rate times this.
FASTER = 3.0
# Scores that lie this share of the way above chance apart count as equal; then the smaller change is chosen.
TIE_SHARE = 0.05
# What changes the layers of a network.
SURGERY = frozenset({"activation", "depth", "normalization", "residual", "width"})
# From this share of the way to a perfect answer on, the goal is reached whatever the shallow network may reach.
GOOD_SHARE = 0.85


def search(
    practice: TrainingSetup,
    diagnosis: Diagnosis,
    held: Yardstick,
    budget: Budget,
    seed: int,
    runner: Runner,
    allow: Collection[str] = (),
    known: bool = False,
) -> tuple[Trial, list[Trial]]:
    """Train all prescriptions for a short time and the best of them for longer.

    The set-up as it came goes through the same stages, as what all others have to beat; it does not count as a trial.

    Args:
        practice: What is trained; its validation data score the trials.
        diagnosis: What was found in it.
        held: What scores on the validation data are held against.
        budget: What may be spent; with a number of steps, no training is prolonged.
        seed: Seed of all trainings.
        runner: Runs them; all stages may be cut short.
        allow: What may be changed besides, as :func:`prescribe` has it.
        known: Whether the set-up as it came was trained to its end before; then it does not go beyond the first stage.

    Returns:
        The set-up as it came, and a trial for each prescription, the smallest change first.
    """
    prescriptions = prescribe(diagnosis, practice.redraw is None, longer=budget.steps is None, allow=allow)
    candidates = _fitting(prescriptions, practice, seed, runner.notes)[: budget.trials]
    stages = _Stages(practice, seed, runner)
    last = stages.train("training it as it is", [Prescription()], FIRST_SHARE, FIRST_LEAST)
    last += stages.train("trying prescriptions", candidates, FIRST_SHARE, FIRST_LEAST)
    finalists = _finalists(last, held, budget.trials)
    changes = [each for each in finalists if each.steps] or finalists
    last = stages.train("training the best for longer", changes if known else finalists, SECOND_SHARE, SECOND_LEAST)
    if last and not any(_has_begun(answer, held) for answer in last):
        last = _to_the_end(stages, changes, held, longer=budget.steps is None)
    elif (smaller := _smaller(last, held)) is not None:
        prescription, enough = smaller
        stages.train("training a smaller change to its end", [prescription], 1.0, SECOND_LEAST, enough)
    final = {str(answer.prescription) for answer in last}
    tried = [_trial(answers, name in final) for name, answers in stages.courses.items()]
    return replace(tried[0], reason="as it came", outcome=Outcome.TRIED), tried[1:]


def train_longest(
    practice: TrainingSetup, trials: Sequence[Trial], held: Yardstick, seed: int, runner: Runner
) -> list[Trial]:
    """Train the boldest of what was tried for four times as long, until it comes as far as a cure must.

    For data that a shallow network learns and nothing else does half as well. It ends by half if it shows nothing.

    Args:
        practice: What is trained.
        trials: What was tried so far, the set-up as it came included.
        held: What scores are held against; without a reference nothing is done.
        seed: Seed of the training.
        runner: Runs it.
    """
    halfway = held.at(HALFWAY)
    if halfway is None or any(trial.score >= halfway for trial in trials if trial.outcome is Outcome.TRIED):
        return []
    able = [trial.prescription for trial in trials if trial.runs and _times(trial.prescription) == 1]
    boldest = max(able, key=lambda each: len(each.steps), default=None)
    stages = _Stages(practice, seed, runner)
    if boldest is None or stages.is_late:
        return []
    longest, enough = [_longer(boldest, LONGEST)], held.goal or math.inf
    answers = stages.train("training the boldest for longest", longest, LONGEST, 0, enough, held.luckiest)
    return [_trial(answers, final=True)]


class _Stages:
    """Trainings of prescriptions, stage by stage.

    Attributes:
        courses: All answers so far, by prescription.
    """

    def __init__(self, practice: TrainingSetup, seed: int, runner: Runner) -> None:
        self._practice, self._seed, self._runner = practice, seed, runner
        self.courses: dict[str, list[Answer]] = {}

    @property
    def is_late(self) -> bool:
        """Whether the time for trials is over."""
        return time.monotonic() >= self._runner.deadline

    def train(
        self,
        stage: str,
        prescriptions: Sequence[Prescription],
        share: float,
        least: int,
        enough: float = math.inf,
        hopeless: float = -math.inf,
    ) -> list[Answer]:
        """Train all for a share of the planned steps, ``least`` of them at least, or as long as a score leaves open."""
        planned = self._practice.steps
        steps = max(math.ceil(share * planned), least)
        tasks = [
            TrainTask(each, self._seed, steps=min(steps, planned * _times(each)), enough=enough, hopeless=hopeless)
            for each in prescriptions
        ]
        answers = self._runner.run(stage, run_train_task, Patients(self._practice), tasks, steps, cut=True)
        for answer in answers:
            self.courses.setdefault(str(answer.prescription), []).append(answer)
        return answers


def _to_the_end(stages: _Stages, changes: Sequence[Prescription], held: Yardstick, longer: bool) -> list[Answer]:
    """Train one after the other until one learns, and that for longer if it is still far from perfect."""
    good = held.towards_perfect(GOOD_SHARE)
    enough = math.inf if good is None else good
    last: list[Answer] = []
    for change in reversed(changes):
        last += stages.train("training the best to its end", [change], 1.0, SECOND_LEAST, enough, held.luckiest)
        if _has_begun(last[-1], held) or stages.is_late:
            break
    best = max(last, key=_score)
    if longer and not stages.is_late and held.beyond_luck(_score(best)) and _score(best) < enough:
        last += stages.train("training the best for even longer", [_longer(best.prescription)], LONGER, 0, enough)
    return last


def _has_begun(answer: Answer, held: Yardstick) -> bool:
    """Whether a training has begun to learn: beyond luck, and a little of the way to a perfect answer."""
    little = held.towards_perfect(LITTLE)
    return held.beyond_luck(_score(answer)) and (little is None or _score(answer) >= little)


def choose(trials: Sequence[Trial], baseline: Trial, held: Yardstick) -> Trial | None:
    """Return the smallest change that reaches the goal, else comes near the best; None if none beats luck and baseline.

    Args:
        trials: What was tried, the smallest change first; only those with the most steps are compared.
        baseline: The set-up as it came.
        held: The yardstick on the data that scored them.
    """
    able = [t for t in trials if t.outcome is Outcome.TRIED and t.runs and math.isfinite(t.score)]
    best = max((trial.score for trial in able), default=-math.inf)
    floor = baseline.score if held.chance is None else held.chance
    tie = TIE_SHARE * (best - floor) if math.isfinite(floor) else 0.0
    if not held.beyond_luck(best) or best <= baseline.score + tie:
        return None
    enough = held.goal if held.goal is not None and held.goal <= best else best - tie
    return next(trial for trial in able if trial.score >= enough)


def _finalists(answers: Sequence[Answer], held: Yardstick, trials: int) -> list[Prescription]:
    """Return the set-up as it came unless it is left behind, the best ones, and the very best with larger steps."""
    given, *others = answers
    able = _distinct([answer for answer in others if math.isfinite(_score(answer))])
    if not able:
        return [given.prescription]
    best = sorted(able, key=_score, reverse=True)[:FINALISTS]
    floor = held.chance if held.chance is not None else -math.inf
    way = _score(best[0]) - floor
    small = next((answer for answer in able if _score(answer) - floor >= CLOSE * way), best[0])
    if math.isfinite(way) and small is not best[0]:
        best = [best[0], small]
    in_reach = not math.isfinite(way) or _score(given) - floor >= IN_REACH * way
    faster = _faster(best[0].prescription) if len(answers) <= trials else None
    return [
        *([given.prescription] if in_reach else []),
        *(answer.prescription for answer in able if answer in best),
        *([faster] if faster is not None else []),
    ]


def _distinct(answers: Sequence[Answer]) -> list[Answer]:
    """Leave out what trained step by step like a smaller change: something in it changes nothing."""
    first: dict[object, Answer] = {}
    for answer in answers:
        first.setdefault(answer.run.losses if answer.run is not None else answer, answer)
    return list(first.values())


def _smaller(answers: Sequence[Answer], held: Yardstick) -> tuple[Prescription, float] | None:
    """Return a change that leaves the layers as they are and is behind one that does not, and what it has to reach.

    Short trainings favor shortcuts and normalization, which learn faster. Where these have come far already, the
    smaller change may take all the steps that are planned to come as far.
    """
    good = held.towards_perfect(GOOD_SHARE)
    best = max(answers, key=_score, default=None)
    if best is None or good is None or held.chance is None or _score(best) < good or not _is_surgery(best):
        return None
    way = _score(best) - held.chance
    small = next((answer for answer in answers if answer.prescription.steps), best)
    close = CLOSE * way <= _score(small) - held.chance < (1 - TIE_SHARE) * way
    return (small.prescription, _score(best) - TIE_SHARE * way) if close and not _is_surgery(small) else None


def _is_surgery(answer: Answer) -> bool:
    return any(step.remedy in SURGERY for step in answer.prescription.steps)


def _longer(prescription: Prescription, times: int = LONGER) -> Prescription:
    """Return a prescription that also prolongs the training, unless it does already."""
    longer = Step("longer_training", {"times": times})
    steps = prescription.steps if _times(prescription) > 1 else (*prescription.steps, longer)
    return Prescription(steps, rationale(steps))


def _times(prescription: Prescription) -> int:
    """Return by how much a prescription prolongs the training."""
    return math.prod(int(s.settings["times"] or 1) for s in prescription.steps if s.remedy == "longer_training")


def _score(answer: Answer) -> float:
    return answer.run.score if answer.run is not None else -math.inf


def _faster(prescription: Prescription) -> Prescription | None:
    """Return a prescription with a larger rate of its optimizer; None if it sets none."""
    steps = [
        replace(step, settings={**step.settings, "lr": float(f"{FASTER * float(step.settings['lr'] or 0.0):.3g}")})
        if step.remedy in ("optimizer", "learning_rate")
        else step
        for step in prescription.steps
    ]
    return replace(prescription, steps=tuple(steps)) if tuple(steps) != prescription.steps else None


def _fitting(
    candidates: Iterable[Prescription], setup: TrainingSetup, seed: int, notes: list[str]
) -> list[Prescription]:
    """Leave out the steps that do not fit the set-up, note why, and drop what then is there twice."""
    candidates = list(candidates)
    problems: dict[str, str] = {}
    thawed = tuple(step for step in candidates[0].steps if step.remedy == "unfreeze") if candidates else ()
    for name, step in {str(step): step for candidate in candidates for step in candidate.steps}.items():
        try:  # what is drawn afresh must not be frozen
            apply(Prescription((*thawed, step) if step not in thawed else thawed), setup, seed)
        except Exception as error:  # on networks never seen before a remedy may fail in any way
            problems[name] = problem_of(error)
            notes.append(f"Not tried: {problems[name]}")
    kept: list[tuple[Step, ...]] = []
    for candidate in candidates:
        steps = tuple(step for step in candidate.steps if str(step) not in problems)
        if steps and steps not in kept:
            kept.append(steps)
    return [Prescription(steps, rationale(steps)) for steps in kept]


def _trial(answers: Sequence[Answer], final: bool) -> Trial:
    """Turn the trainings of a prescription into a trial."""
    runs = tuple(answer.run for answer in answers if answer.run is not None)
    cost = sum(answer.cost for answer in answers)
    if problem := next((answer.problem for answer in answers if answer.problem), ""):
        return Trial(answers[0].prescription, runs, Outcome.NOT_APPLICABLE, problem, cost)
    reason = "" if final else "another went ahead of it"
    return Trial(answers[0].prescription, runs, Outcome.TRIED if final else Outcome.STOPPED, reason, cost)
