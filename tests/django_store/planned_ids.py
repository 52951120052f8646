"""The store over a project's tables, seen under the ids that messages have in Digi's own."""

from django.db.backends.base.base import BaseDatabaseWrapper

from digi._digi import Applied, Batch
from digi.django.project_tables import ProjectTables
from digi.django.store import OrmStore


class _Tables(ProjectTables):
    def message_id(self, planned: int) -> int:
        return planned

    def planned(self, batch: Batch, number: bool = True) -> Batch:
        del number
        return batch

    def shown(self, applied: Applied) -> Applied:
        return applied


class PlannedIds(OrmStore):
    """For the tests that know what ids Digi chooses, or compare with a store that has those."""

    def _tables(self, connection: BaseDatabaseWrapper) -> ProjectTables:
        assert self._mapped is not None
        return _Tables(connection, self._mapped, self._rooms)
