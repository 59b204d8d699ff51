"""How reserved becomes spent: parts and ends of attempts, in hard currencies and in the soft one.

In a hard currency an attempt never costs more than its credit. In a soft one it may: what runs is finished, and takes
the time that it takes. Then the rest of the budget is reserved for it as long as there is some, and what goes beyond
the limit is `exceed`ed: counted, and never part of `spent`, so the account keeps `spent + reserved <= limit`.
"""

import dataclasses

from service.currency import to_amount
from service.ledger import TransferKind
from service.planner.draft import Draft
from service.tasks import Task


def settle(draft: Draft, task: Task, value: float, *, number: int) -> Task:
    """Settles what the attempt has cost so far beyond what is settled already.

    Args:
        value: cost of the attempt so far [cost units].
        number: of the transfer: the part, or what closes the attempt.
    """
    currency = draft.account(task.job_id).currency
    value = max(value, task.settled_value)
    if currency.is_soft:
        return _settle_soft(draft, task, value, number=number)
    settled = max(task.settled, min(to_amount(currency, value), task.credit))
    draft.transfer(task, TransferKind.settle, number=number, amount=settled - task.settled)
    return draft.put_task(dataclasses.replace(task, settled=settled, settled_value=value))


def _settle_soft(draft: Draft, task: Task, value: float, *, number: int) -> Task:
    currency = draft.account(task.job_id).currency
    more = to_amount(currency, value) - to_amount(currency, task.settled_value)
    missing = min(more - (task.credit - task.settled), draft.account(task.job_id).available)
    if missing > 0:
        version = task.grant_version + 1
        draft.transfer(task, TransferKind.reserve, number=version, amount=missing)
        task = dataclasses.replace(task, credit=task.credit + missing, grant_version=version)
    settled = min(more, task.credit - task.settled)
    draft.transfer(task, TransferKind.settle, number=number, amount=settled)
    if more > settled:
        draft.transfer(task, TransferKind.exceed, number=number, amount=more - settled)
    return draft.put_task(dataclasses.replace(task, settled=task.settled + settled, settled_value=value))
