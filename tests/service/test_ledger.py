"""The ledger's invariant under any sequence of transfers, and the state machine's moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.currency import Currency
from service.errors import BudgetExceeded
from service.ledger import Account, Transfer, TransferKind


def make_transfer(kind: TransferKind, amount: int) -> Transfer:
    return Transfer(account="job:flops", attempt_id="t.1", kind=kind, number=0, amount=amount)


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of reserve, settle and void keeps every balance within the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(id="job:flops", currency=Currency.flops, limit=1000)
        self.reserved = self.settled = self.voided = 0

    @rule(amount=st.integers(min_value=0, max_value=1500))
    def reserve(self, amount: int) -> None:
        transfer = make_transfer(TransferKind.reserve, amount)
        if amount > self.account.available:
            with pytest.raises(BudgetExceeded, match=f"asked {amount:,}"):
                self.account.apply(transfer)
            return
        self.account = self.account.apply(transfer)
        self.reserved += amount

    @precondition(lambda self: self.account.reserved > 0)
    @rule(data=st.data(), kind=st.sampled_from([TransferKind.settle, TransferKind.void]))
    def release(self, data, kind: TransferKind) -> None:
        amount = data.draw(st.integers(min_value=0, max_value=self.account.reserved))
        self.account = self.account.apply(make_transfer(kind, amount))
        if kind is TransferKind.settle:
            self.settled += amount
        else:
            self.voided += amount

    @rule(kind=st.sampled_from([TransferKind.settle, TransferKind.void]))
    def release_too_much(self, kind: TransferKind) -> None:
        with pytest.raises(ValueError, match="reserved"):
            self.account.apply(make_transfer(kind, self.account.reserved + 1))

    @invariant()
    def balances_follow_from_transfers(self) -> None:
        assert self.account.spent == self.settled
        assert self.account.reserved == self.reserved - self.settled - self.voided
        assert self.account.limit is not None
        assert self.account.spent + self.account.reserved <= self.account.limit


TestLedger = LedgerMachine.TestCase


@given(amount=st.integers(max_value=-1))
def test_transfer_negative_amount_is_refused(amount):
    account = Account(id="a", currency=Currency.tokens, limit=None)
    with pytest.raises(ValueError, match=">= 0"):
        account.apply(make_transfer(TransferKind.reserve, amount))
