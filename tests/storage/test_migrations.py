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
        of_jobs = {index["name"]: index["unique"] for index in inspect(connection).get_indexes("jobs")}
        assert of_jobs["uq_jobs_user_id_request"]
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


async def test_an_existing_database_keeps_what_it_has(tmp_path: Path) -> None:
    """From the first schema, with somebody's avatar, grants and job in it."""
    path, made = tmp_path / "records.sqlite", "2026-01-02 03:04:05.000000"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        migrations.upgrade(connection, "0001")
        for statement in (
            f"INSERT INTO users VALUES ('u1', 'chat', 'ann', 'Ann', '{made}')",
            f"INSERT INTO avatars VALUES ('a1', 'u1', 'cr7d', 'man', 'ready', 'adapters/a1/x', '{{}}', '{made}')",
            f"INSERT INTO grants VALUES ('g1', 'a1', 'room', 'studio', '{made}')",
            f"INSERT INTO grants VALUES ('g2', 'a1', 'user', 'u2', '{made}')",
            "INSERT INTO jobs (id, kind, user_id, frontend, room, payload, state, attempt, created, cancel_requested)"
            f""" VALUES ('j1', 'train', 'u1', 'chat', 'studio', '{{"avatar_id": "a1"}}', 'queued', 0, '{made}', 0)""",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    records = await Records.open(f"sqlite+aiosqlite:///{path}")
    ann = await records.users.get_or_create("chat", "ann", "Ann")
    assert (ann.id, ann.banned) == ("u1", None)
    [avatar] = await records.avatars.owned_by("u1")
    assert (avatar.learned_as, avatar.preferred) == ("cr7d", None)
    assert [(grant.grantee_id, grant.expires) for grant in await records.grants.for_avatar("a1")] == [
        ("chat:studio", None),
        ("u2", None),
    ]
    job = await records.jobs.get("j1")
    assert job and (job.state, job.grant_scope, job.request) == ("queued", None, None)
    await records.close()


async def test_opening_twice_keeps_what_was_written(records_url: str) -> None:
    for _ in range(2):
        records = await Records.open(records_url)
        user = await records.users.get_or_create("chat", "1", "Ann")
        await records.close()
    reopened = await Records.open(records_url)
    assert await reopened.users.get_or_create("chat", "1", "Ann") == user
    await reopened.close()
