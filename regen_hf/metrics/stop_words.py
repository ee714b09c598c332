"""Stop words of narratives."""

from __future__ import annotations

STOP_WORDS = frozenset(
    """about above after again all all-round almost along also always among and another any are around average
    because been before below between both bought but buy buyer buying can chose close companion customer
    customers does each earlier ever every few find five follow follows for four frequent from has have having
    her his history how however into it's item items its just keep known last latest less like lines looking
    many more most mostly much nearly never new not occasional often one ones only opening other our out over
    own people picked place price prices product products purchase purchased purchases rated rating ratings
    reason regular review reviews same she shopper should since so some someone something still such suggest
    suggests take than that the their them then there these they this those three through time times too
    turned twice two use usually very want wanted wants was way well were what when where which while who why
    will with without words would you your""".split()  # noqa: SIM905
)
"""Words without information about a customer, which need no evidence."""
