"""Commands for a person's own avatars: list, rename, share, export, delete, and choose a default."""

import re

from bot import limits
from bot.commands.desk import Desk, Visit
from bot.messages import Reply
from bot.programs import PROGRAMS
from bot.replies import account, rights
from bot.replies import avatars as replies
from storage import naming
from storage.errors import UserError
from storage.records import Avatar, Grant, User


class Avatars:
    """The commands for a person's own avatars, and for who else may draw them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def avatars(self, visit: Visit, token: str = "", rename: str = "", default: bool = False) -> Reply:
        """List what the person can draw here; show one of their own, rename it, or make it the default."""
        if token:
            avatar = await self._desk.own_by_token(visit.user, token)
            if rename:
                return await self._rename(avatar, rename)
            return await self._prefer(avatar) if default else await self._card(visit, avatar)
        if rename or default:
            raise UserError("avatars_which")
        own = await self._desk.records.avatars.owned_by(visit.user.id)
        shared = [
            (avatar, await self._desk.name_of(avatar.owner_id, visit.caller.platform))
            for avatar in await self._desk.usable(visit)
            if avatar.owner_id != visit.user.id
        ]
        preferred = await self._desk.default_of(visit.user)
        return Reply(replies.listed(own, shared, preferred.id if preferred else None), private=True)

    async def card(self, visit: Visit, avatar_id: str) -> Reply:
        """The Change button under the list."""
        return await self._card(visit, await self._desk.own_avatar(visit.user, avatar_id))

    async def _card(self, visit: Visit, avatar: Avatar) -> Reply:
        photos = await self._desk.records.avatars.photos(avatar.id)
        preferred = await self._desk.default_of(visit.user)
        shares = await self._shares(visit, avatar)
        is_default = preferred is not None and preferred.id == avatar.id
        return Reply(replies.avatar_card(avatar, len(photos), shares, is_default), private=True)

    async def how_to_rename(self, visit: Visit, avatar_id: str) -> Reply:
        """The Rename button."""
        return Reply(replies.how_to_rename(await self._desk.own_avatar(visit.user, avatar_id)), private=True)

    async def _rename(self, avatar: Avatar, token: str) -> Reply:
        token = naming.token(token.lower())
        others = [one for one in await self._desk.records.avatars.owned_by(avatar.owner_id) if one.id != avatar.id]
        if any(one.token == token and one.state != "failed" for one in others):
            suggestion = naming.suggest_token(token, {one.token for one in others})
            raise UserError("token_taken", token=token, suggestion=suggestion)
        return Reply(
            replies.renamed(await self._desk.records.avatars.rename(avatar.id, token), avatar.token), private=True
        )

    async def prefer(self, visit: Visit, avatar_id: str) -> Reply:
        """The button that makes an avatar the default."""
        return await self._prefer(await self._desk.own_avatar(visit.user, avatar_id))

    async def _prefer(self, avatar: Avatar) -> Reply:
        _ready(avatar)
        return Reply(replies.preferred(await self._desk.records.avatars.set_default(avatar.id)), private=True)

    # /share and /unshare

    async def share(self, visit: Visit, token: str, person: str = "", expires: str = "") -> Reply:
        """Let everybody here, or one person everywhere, draw an avatar."""
        return await self._share(visit, await self._desk.own_by_token(visit.user, token), person, expires)

    async def share_here(self, visit: Visit, avatar_id: str) -> Reply:
        """The button under a trained avatar."""
        avatar = await self._desk.own_avatar(visit.user, avatar_id)
        return await self._share(visit, avatar, "", "")

    async def _share(self, visit: Visit, avatar: Avatar, person: str, expires: str) -> Reply:
        _ready(avatar)
        lasts = limits.lifetime(expires)
        records = self._desk.records
        if person:
            grantee = await self._person(visit, person)
            if grantee.id == visit.user.id:
                raise UserError("share_self")
            grant = await records.grants.create(avatar.id, "user", grantee.id, lasts)
            share = rights.Share(grant.id, avatar.token, _called(grantee), grant.expires)
            return Reply(rights.shared_with(avatar, share), private=True)
        if visit.caller.direct:
            raise UserError("share_where", token=avatar.token)
        grant = await records.grants.create(avatar.id, "room", visit.caller.grant_scope, lasts)
        share = rights.Share(grant.id, avatar.token, rights.this_group(), grant.expires)
        return Reply(rights.shared_here(avatar, visit.caller.name, share))

    async def unshare(self, visit: Visit, token: str, person: str = "") -> Reply:
        """Take a grant back: this group's, or one person's."""
        avatar = await self._desk.own_by_token(visit.user, token)
        grantee = ("user", (await self._person(visit, person)).id) if person else ("room", visit.caller.grant_scope)
        for grant in await self._desk.records.grants.for_avatar(avatar.id):
            if (grant.grantee_kind, grant.grantee_id) == grantee:
                return await self._revoke(visit, avatar, grant)
        shares = await self._shares(visit, avatar)
        if not shares:
            raise UserError("no_share", token=avatar.token)
        return Reply(rights.unshare_which(avatar.token, shares), private=True)

    async def revoke(self, visit: Visit, grant_id: str) -> Reply:
        """The button that takes a grant back."""
        grant = await self._desk.records.grants.get(grant_id)
        if grant is None:
            raise UserError("share_gone")
        return await self._revoke(visit, await self._desk.own_avatar(visit.user, grant.avatar_id), grant)

    async def _revoke(self, visit: Visit, avatar: Avatar, grant: Grant) -> Reply:
        share = await self._described(visit, avatar, grant)
        await self._desk.records.grants.revoke(avatar.id, grant.grantee_kind, grant.grantee_id)
        stopped = await self._desk.stop_without_right(avatar.id)
        left = await self._shares(visit, avatar)
        return Reply(rights.unshared(avatar.token, share.grantee, stopped, left), private=True, spent=True)

    async def _person(self, visit: Visit, text: str) -> User:
        """The person that a mention, an id or a name stands for. Raises UserError if several have that name."""
        mention = re.fullmatch(r"<@!?(\d+)>", text.strip())
        name = mention[1] if mention else text.strip().removeprefix("@")
        found = await self._desk.records.users.find(visit.caller.platform, name)
        if not found:
            raise UserError("unknown_handle" if text.strip().startswith("@") else "unknown_person", person=name[:32])
        if len({one.id for one in found}) > 1:
            raise UserError("several_persons", person=name[:32], count=len(found))
        return found[0]

    async def _shares(self, visit: Visit, avatar: Avatar) -> list[rights.Share]:
        return [
            await self._described(visit, avatar, grant)
            for grant in await self._desk.records.grants.for_avatar(avatar.id)
        ]

    async def _described(self, visit: Visit, avatar: Avatar, grant: Grant) -> rights.Share:
        if grant.grantee_kind == "room":
            grantee = rights.this_group() if grant.grantee_id == visit.caller.grant_scope else rights.another_group()
        else:
            accounts = await self._desk.records.users.accounts(grant.grantee_id)
            here = [account for account in accounts if account.platform == visit.caller.platform]
            grantee = _called((here or accounts)[0]) if accounts else rights.somebody()
        return rights.Share(grant.id, avatar.token, grantee, grant.expires)

    # /export and /delete

    async def export(self, visit: Visit, token: str, program: str = "") -> Reply:
        """The file of what was learned, for one of the programs that can read it."""
        return self._export(await self._desk.own_by_token(visit.user, token), program)

    async def export_of(self, visit: Visit, avatar_id: str) -> Reply:
        """The Export button."""
        return self._export(await self._desk.own_avatar(visit.user, avatar_id), "")

    async def export_for(self, program: str, visit: Visit, avatar_id: str) -> Reply:
        """The button of a program under the answer to /export."""
        return self._export(await self._desk.own_avatar(visit.user, avatar_id), program)

    def _export(self, avatar: Avatar, program: str) -> Reply:
        _ready(avatar)
        if avatar.adapter_key is None:
            raise UserError("avatar_gone")
        if program and program not in PROGRAMS:
            raise UserError("unknown_program", program=program[:32], programs=", ".join(PROGRAMS))
        exports = avatar.details.get("exports") or {}
        offered = [name for name, (_, form) in PROGRAMS.items() if form in exports]
        if offered and not program:
            return Reply(account.export_for_what(avatar, offered), private=True)
        if program in offered:
            _, form = PROGRAMS[program]
            return Reply(account.exported_for(avatar, program, exports[form]), private=True)
        if offered:
            raise UserError("not_for_program", program=PROGRAMS[program][0], token=avatar.token)
        method = str((avatar.details.get("recipe") or {}).get("method", "lora"))
        return Reply(account.exported(avatar, method, avatar.adapter_key), private=True)

    async def delete(self, visit: Visit, token: str) -> Reply:
        """Ask before an avatar is erased."""
        return await self._confirm(await self._desk.own_by_token(visit.user, token))

    async def delete_of(self, visit: Visit, avatar_id: str) -> Reply:
        """The Delete button."""
        return await self._confirm(await self._desk.own_avatar(visit.user, avatar_id))

    async def _confirm(self, avatar: Avatar) -> Reply:
        photos = await self._desk.records.avatars.photos(avatar.id)
        return Reply(replies.confirm_delete(avatar, len(photos)), private=True)

    async def erase(self, visit: Visit, avatar_id: str) -> Reply:
        """The confirmed deletion: erases avatar, photos, training and pictures, and stops its jobs."""
        avatar = await self._desk.own_avatar(visit.user, avatar_id)
        files = await self._desk.erase(avatar)
        return Reply(replies.erased(avatar, files), private=True, spent=True)

    async def keep(self, visit: Visit, avatar_id: str) -> Reply:
        """The Keep button: nothing is erased."""
        return Reply(replies.kept(await self._desk.own_avatar(visit.user, avatar_id)), private=True, spent=True)


def _ready(avatar: Avatar) -> None:
    if avatar.state != "ready":
        raise UserError(f"avatar_{avatar.state}", token=avatar.token)


def _called(user: User) -> str:
    """A name, with the id on platforms where names are not unique."""
    return user.name if user.platform_id == user.name.lower() else f"{user.name} ({user.platform} {user.platform_id})"
