"""Helpers that read and purge the seals of the audit chain."""


def seals(database):
    with database.read() as tx:
        return [it.seal for it in tx.seals.after(0, limit=1000)]


def told(report):
    """The fields of a verification report, with the head given by its seal number."""
    return (
        report["checked"],
        report["head"]["seal"],
        report["reason"],
        report["firstBroken"],
        report["unsealed"],
        report["missing"],
    )


def purge(database, before, limit):
    with database.write() as tx:
        return tx.seals.purge(before, limit=limit)
