"""Take reports, and say whether trials shall go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from asktell.server.application.clerk import Clerk
from asktell.server.application.curves import Curves
from asktell.server.application.leases import Directive, Report, Taken, Verdict, remember, report
from asktell.server.application.ports import Judge
from asktell.server.domain.stopping import StopRequest

MANY = 500
"""Curves that are looked at on the event loop, in less than a millisecond; with more of them a thread does it, and others need not wait."""


class Reports:
    """Keeps what workers report, and has the study's stopping rule judge the trial. Used from the event loop alone.

    The rule judges by what is durable: any replica comes to the same answer, and a report that is repeated, as after a lost reply, hears it
    again unless more was measured meanwhile. Without a rule nothing is read.
    """

    def __init__(self, clerk: Clerk, curves: Curves, judge: Judge) -> None:
        self._clerk, self._curves, self._judge = clerk, curves, judge

    async def report(self, command: Report) -> Verdict:
        """Keep the measurements and renew the lease; the verdict says whether to go on. A lost lease keeps nothing and is an answer.

        What the rule says is kept with the lease, for its renewals.
        """
        taken = await self._clerk.make(report(command))
        if taken.lease is None:
            return taken.verdict
        stop = await self._stop(command, taken)
        if stop is None:
            return taken.verdict
        if stop != taken.lease.stop:
            await self._clerk.make(remember(command, stop))
        directive = Directive.STOP if stop else Directive.CONTINUE
        return replace(taken.verdict, directive=directive, message=stop)

    async def _stop(self, command: Report, taken: Taken) -> str | None:
        """Why the trial shall stop; "" if it may go on, None if the rule, if there is one, does not judge it by this report."""
        study = taken.study
        rule = study.spec.stopping_rule
        if rule is None:
            return None
        metric = rule.looked_at(study.spec.objectives)
        steps = [measurement.step for measurement in command.measurements if metric.metric in measurement.metrics]
        if not steps or not rule.judges(max(steps)):
            return None
        curves = await self._curves.read(study, metric, incarnation=taken.incarnation)
        request = StopRequest(
            rule=rule, metric=metric, curves=curves, number=command.trial.number, first=min(steps), step=max(steps)
        )
        if len(curves) <= MANY:
            return self._judge(request) or ""
        return await asyncio.to_thread(self._judge, request) or ""
