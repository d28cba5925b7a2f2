"""Refusals before anybody is known: counted by minute and address, never audited one by one."""

import uuid

from server.use_cases.auditing import Auditor
from server.use_cases.rejections import RejectionAudit


def test_flood_of_bad_tokens_leaves_one_record(provider):
    """Many unacceptable tokens leave one audit record for each address and reason, with their number."""
    for fault in ["bad-signature"] * 5 + ["expired"] * 2:
        assert provider.exchange(provider.github_token(fault=fault)).status_code == 401
    assert [it for it in provider.audit() if it["action"].startswith("token.")] == []

    written = RejectionAudit(
        provider.store, Auditor(provider.clock, uuid.uuid4), provider.rejections, uuid.uuid4
    ).run()

    records = provider.audit(action="token.rejected")
    assert written == 2
    assert {(it["details"]["reason"], it["details"]["count"]) for it in records} == {
        ("bad_signature", 5),
        ("expired", 2),
    }
    assert {it["address"] for it in records} == {"127.0.0.1"}
    assert {it["actor"] for it in records} == {"unverified"}
