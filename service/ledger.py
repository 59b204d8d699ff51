"""Two-phase transfers: reserve the worst case, settle what was used, void the rest.

The invariant `spent + reserved <= limit` is kept twice: here, where the planner works out what it may promise, and as
a CHECK in the database, where a mistake of the planner would roll the tick back. Transfers are append-only and unique
per (account, attempt, kind, number), so that applying one twice changes nothing.
"""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from service.currency import Currency
from service.errors import BudgetExceeded


class TransferKind(StrEnum):
    """What a transfer does to an account."""

    reserve = "reserve"
    settle = "settle"
    void = "void"
    exceed = "exceed"
    """Cost beyond the limit, in a soft currency: was never reserved, and is no part of what is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One entry of the ledger.

    Args:
        number: distinguishes transfers of one kind within an attempt: grant version or part.
        amount: >= 0 [ledger amount].
    """

    account: str
    attempt_id: str
    kind: TransferKind
    number: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Balance of one scope in one currency.

    Args:
        id: `<scope>:<currency>`, e.g. `job-3f:flops`.
        limit: what may be spent, or None for an account that only records.
        exceeded: what was used beyond the limit; always 0 in a hard currency.
    """

    id: str
    currency: Currency
    limit: int | None
    spent: int = 0
    reserved: int = 0
    exceeded: int = 0

    @property
    def used(self) -> int:
        """All that was used, beyond the limit too."""
        return self.spent + self.exceeded

    @property
    def available(self) -> int:
        """What may still be reserved; a very large number without a limit."""
        return (1 << 62) if self.limit is None else self.limit - self.spent - self.reserved

    def apply(self, transfer: Transfer) -> "Account":
        """The account after the transfer.

        Raises:
            BudgetExceeded: a reservation larger than what is available.
            ValueError: a negative amount, a settlement or void beyond what is reserved, an excess in a hard currency.
        """
        if transfer.amount < 0:
            raise ValueError(f"{self.id}: transfer amounts are >= 0, got {transfer.amount}")
        match transfer.kind:
            case TransferKind.reserve:
                if transfer.amount > self.available:
                    raise BudgetExceeded(account=self.id, asked=transfer.amount, available=self.available)
                return dataclasses.replace(self, reserved=self.reserved + transfer.amount)
            case TransferKind.settle:
                self._check_reserved(transfer)
                return dataclasses.replace(
                    self, reserved=self.reserved - transfer.amount, spent=self.spent + transfer.amount
                )
            case TransferKind.void:
                self._check_reserved(transfer)
                return dataclasses.replace(self, reserved=self.reserved - transfer.amount)
            case TransferKind.exceed:
                if not self.currency.is_soft:
                    raise ValueError(f"{self.id}: {transfer.amount:,} beyond the limit of a hard currency")
                return dataclasses.replace(self, exceeded=self.exceeded + transfer.amount)

    def _check_reserved(self, transfer: Transfer) -> None:
        if transfer.amount > self.reserved:
            raise ValueError(f"{self.id}: {transfer.kind} of {transfer.amount:,} with only {self.reserved:,} reserved")
