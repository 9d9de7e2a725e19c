from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from storage.records import Records, migrations
from storage.records.tables import metadata


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_upgrading_from_nothing_gives_the_models(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/new.sqlite")
    with engine.begin() as connection:
        assert differences(connection)
        migrations.upgrade(connection)
        assert differences(connection) == []
        migrations.upgrade(connection)  # once more changes nothing
        assert differences(connection) == []
        indexes = {index["name"] for index in inspect(connection).get_indexes("avatars")}
        assert "uq_avatars_live_token" in indexes
    engine.dispose()


def test_every_step_of_the_way_can_be_taken(tmp_path: Path) -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    revisions = [step.revision for step in script.walk_revisions()][::-1]
    engine = create_engine(f"sqlite:///{tmp_path}/steps.sqlite")
    for revision in revisions:
        with engine.begin() as connection:
            migrations.upgrade(connection, revision)
            assert MigrationContext.configure(connection).get_current_revision() == revision
    assert script.get_heads() == [revisions[-1]]
    engine.dispose()


async def test_opening_twice_keeps_what_was_written(records_url: str) -> None:
    for _ in range(2):
        records = await Records.open(records_url)
        user = await records.user("chat", "1", "Ann")
        await records.close()
    reopened = await Records.open(records_url)
    assert await reopened.user("chat", "1", "Ann") == user
    await reopened.close()
