"""What people do with their avatars: look at them, rename, prefer, share, export and delete them."""

import re

from bot import limits
from bot.commands.desk import Desk
from bot.messages import Caller, Reply
from bot.replies import account, rights
from bot.replies import jobs as replies
from storage import naming
from storage.errors import UserError
from storage.records import Avatar, Grant, User


class Avatars:
    """What has to do with one's own avatars, and who else may draw them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def avatars(self, caller: Caller, token: str = "", rename: str = "", default: bool = False) -> Reply:
        """List what the person can draw here; show one of their own, rename it, or make it the default."""
        user = await self._desk.user(caller)
        if token:
            avatar = await self._desk.own_by_token(user, token)
            if rename:
                return await self._rename(avatar, rename)
            return await self._prefer(avatar) if default else await self._card(caller, avatar)
        if rename or default:
            raise UserError("avatars_which")
        own = await self._desk.records.avatars.owned_by(user.id)
        shared = [
            (avatar, await self._desk.name_of(avatar.owner_id, caller.platform))
            for avatar in await self._desk.usable(caller, user)
            if avatar.owner_id != user.id
        ]
        preferred = await self._desk.default_of(user)
        return Reply(replies.avatars(own, shared, preferred.id if preferred else None), private=True)

    async def card(self, caller: Caller, avatar_id: str) -> Reply:
        """The Change button under the list."""
        return await self._card(caller, await self._desk.own_avatar(caller, avatar_id))

    async def _card(self, caller: Caller, avatar: Avatar) -> Reply:
        photos = await self._desk.records.avatars.photos(avatar.id)
        preferred = await self._desk.default_of(await self._desk.user(caller))
        shares = await self._shares(caller, avatar)
        is_default = preferred is not None and preferred.id == avatar.id
        return Reply(replies.avatar_card(avatar, len(photos), shares, is_default), private=True)

    async def how_to_rename(self, caller: Caller, avatar_id: str) -> Reply:
        """The Rename button."""
        return Reply(replies.how_to_rename(await self._desk.own_avatar(caller, avatar_id)), private=True)

    async def _rename(self, avatar: Avatar, token: str) -> Reply:
        token = naming.token(token.lower())
        others = [one for one in await self._desk.records.avatars.owned_by(avatar.owner_id) if one.id != avatar.id]
        if any(one.token == token and one.state != "failed" for one in others):
            suggestion = naming.suggest_token(token, {one.token for one in others})
            raise UserError("token_taken", token=token, suggestion=suggestion)
        return Reply(
            replies.renamed(await self._desk.records.avatars.rename(avatar.id, token), avatar.token), private=True
        )

    async def prefer(self, caller: Caller, avatar_id: str) -> Reply:
        """The button that makes an avatar the default."""
        return await self._prefer(await self._desk.own_avatar(caller, avatar_id))

    async def _prefer(self, avatar: Avatar) -> Reply:
        _ready(avatar)
        return Reply(replies.preferred(await self._desk.records.avatars.set_default(avatar.id)), private=True)

    # /share and /unshare

    async def share(self, caller: Caller, token: str, person: str = "", expires: str = "") -> Reply:
        """Let everybody here, or one person anywhere, draw an avatar."""
        user = await self._desk.user(caller)
        return await self._share(caller, user, await self._desk.own_by_token(user, token), person, expires)

    async def share_here(self, caller: Caller, avatar_id: str) -> Reply:
        """The button under a trained avatar."""
        avatar = await self._desk.own_avatar(caller, avatar_id)
        return await self._share(caller, await self._desk.user(caller), avatar, "", "")

    async def _share(self, caller: Caller, user: User, avatar: Avatar, person: str, expires: str) -> Reply:
        _ready(avatar)
        lasts = limits.lifetime(expires)
        records = self._desk.records
        if person:
            whom = await self._person(caller, person)
            if whom.id == user.id:
                raise UserError("share_self")
            grant = await records.grants.create(avatar.id, "user", whom.id, lasts)
            share = rights.Share(grant.id, avatar.token, _called(whom), grant.expires)
            return Reply(rights.shared_with(avatar, share), private=True)
        if caller.direct:
            raise UserError("share_where", token=avatar.token)
        grant = await records.grants.create(avatar.id, "room", caller.place, lasts)
        share = rights.Share(grant.id, avatar.token, rights.this_group(), grant.expires)
        return Reply(rights.shared_here(avatar, caller.name, share))

    async def unshare(self, caller: Caller, token: str, person: str = "") -> Reply:
        """Take a grant back: this group's, or one person's."""
        user = await self._desk.user(caller)
        avatar = await self._desk.own_by_token(user, token)
        grantee = ("user", (await self._person(caller, person)).id) if person else ("room", caller.place)
        for grant in await self._desk.records.grants.for_avatar(avatar.id):
            if (grant.grantee_kind, grant.grantee_id) == grantee:
                return await self._revoke(caller, avatar, grant)
        shares = await self._shares(caller, avatar)
        if not shares:
            raise UserError("no_share", token=avatar.token)
        return Reply(rights.unshare_which(avatar.token, shares), private=True)

    async def revoke(self, caller: Caller, grant_id: str) -> Reply:
        """The one tap that takes a grant back."""
        grant = await self._desk.records.grants.get(grant_id)
        if grant is None:
            raise UserError("share_gone")
        return await self._revoke(caller, await self._desk.own_avatar(caller, grant.avatar_id), grant)

    async def _revoke(self, caller: Caller, avatar: Avatar, grant: Grant) -> Reply:
        share = await self._in_words(caller, avatar, grant)
        await self._desk.records.grants.revoke(avatar.id, grant.grantee_kind, grant.grantee_id)
        stopped = await self._desk.stop_without_right(avatar.id)
        left = await self._shares(caller, avatar)
        return Reply(rights.unshared(avatar.token, share.whom, stopped, left), private=True, spent=True)

    async def _person(self, caller: Caller, words: str) -> User:
        """Whom somebody means: a mention, an id or a name that only one person here has. Handles are not kept."""
        mention = re.fullmatch(r"<@!?(\d+)>", words.strip())
        name = mention[1] if mention else words.strip().removeprefix("@")
        found = await self._desk.records.users.find(caller.platform, name)
        if not found:
            raise UserError("unknown_handle" if words.strip().startswith("@") else "unknown_person", person=name[:32])
        if len({one.id for one in found}) > 1:
            raise UserError("several_persons", person=name[:32], count=len(found))
        return found[0]

    async def _shares(self, caller: Caller, avatar: Avatar) -> list[rights.Share]:
        return [
            await self._in_words(caller, avatar, grant)
            for grant in await self._desk.records.grants.for_avatar(avatar.id)
        ]

    async def _in_words(self, caller: Caller, avatar: Avatar, grant: Grant) -> rights.Share:
        if grant.grantee_kind == "room":
            whom = rights.this_group() if grant.grantee_id == caller.place else rights.another_group()
        else:
            accounts = await self._desk.records.users.accounts(grant.grantee_id)
            here = [account for account in accounts if account.platform == caller.platform]
            whom = _called((here or accounts)[0]) if accounts else rights.somebody()
        return rights.Share(grant.id, avatar.token, whom, grant.expires)

    # /export and /delete

    async def export(self, caller: Caller, token: str) -> Reply:
        """The adapter's file."""
        return self._export(await self._desk.own_by_token(await self._desk.user(caller), token))

    async def export_of(self, caller: Caller, avatar_id: str) -> Reply:
        """The Export button."""
        return self._export(await self._desk.own_avatar(caller, avatar_id))

    def _export(self, avatar: Avatar) -> Reply:
        _ready(avatar)
        if avatar.adapter_key is None:
            raise UserError("avatar_gone")
        method = str((avatar.details.get("recipe") or {}).get("method", "lora"))
        return Reply(account.exported(avatar, method, avatar.adapter_key), private=True)

    async def delete(self, caller: Caller, token: str) -> Reply:
        """Ask before an avatar is erased."""
        return await self._confirm(await self._desk.own_by_token(await self._desk.user(caller), token))

    async def delete_of(self, caller: Caller, avatar_id: str) -> Reply:
        """The Delete button."""
        return await self._confirm(await self._desk.own_avatar(caller, avatar_id))

    async def _confirm(self, avatar: Avatar) -> Reply:
        photos = await self._desk.records.avatars.photos(avatar.id)
        return Reply(replies.confirm_delete(avatar, len(photos)), private=True)

    async def erase(self, caller: Caller, avatar_id: str) -> Reply:
        """The confirmed deletion: avatar, photos, training and pictures go, and its jobs stop."""
        avatar = await self._desk.own_avatar(caller, avatar_id)
        files = await self._desk.erase(avatar)
        return Reply(replies.erased(avatar, files), private=True, spent=True)

    async def keep(self, caller: Caller, avatar_id: str) -> Reply:
        """The person thought better of it."""
        return Reply(replies.kept(await self._desk.own_avatar(caller, avatar_id)), private=True, spent=True)


def _ready(avatar: Avatar) -> None:
    if avatar.state != "ready":
        raise UserError(f"avatar_{avatar.state}", token=avatar.token)


def _called(user: User) -> str:
    """A name, with the id where anybody may take any name."""
    return user.name if user.platform_id == user.name.lower() else f"{user.name} ({user.platform} {user.platform_id})"
