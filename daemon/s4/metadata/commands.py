"""Commands: what gateways ask a partition's primary to do, and what it answers. Plain values for the wire.

Every command is decided once, in order, by the primary (rule R1); a refusal comes back as `Refused`. `Stale`
says that the sender's bucket settings are older than the partition's: refresh them and send it again.
"""

from __future__ import annotations

import msgspec

from s4.metadata.rows import AccessKey, Bucket, Extent, Grant, Job, LastUse, Notify, Object, Upload, User


class Command(msgspec.Struct, tag=True, frozen=True):
    """Base of all commands."""


class Settings(msgspec.Struct, frozen=True):
    """The bucket settings that a commit was prepared under (rule L2). A new version that asks for no retention has
    `lock_mode` for `lock_ms`; `notify` where the bucket has rules for events."""

    bucket: int
    revision: int
    versioning: str
    lock_mode: str = ""
    lock_ms: int = 0
    notify: Notify | None = None


class NewBlob(msgspec.Struct, frozen=True):
    """A blob whose shards are written, to be made known by this commit. In a cluster `stores` names, by position,
    the store that took each shard, empty where none did; `needed` shards must be there when it is decided (D1). One
    without shards (k is 0) brings its `content` (small.py)."""

    blob: bytes
    reference: bytes
    size: int
    stripe: int
    k: int
    m: int
    sha256: bytes
    missing: list[int] = []
    stores: list[str] = []
    needed: int = 0
    content: bytes = b""
    synced: bool = False  # its shards are durable; else the turn that commits it syncs them first


class Conditions(msgspec.Struct, frozen=True):
    """If-Match and If-None-Match of a write; ETags without quotes, `*` for any, empty for not given."""

    if_match: str = ""
    if_none_match: str = ""


NO_CONDITIONS = Conditions()


# -- objects, in the partition of (bucket, key)


class PutObject(Command, frozen=True):
    settings: Settings
    key: bytes
    row: Object
    inline: bytes = b""
    blobs: list[NewBlob] = []
    granted: list[bytes] = []
    conditions: Conditions = NO_CONDITIONS
    rename_from: bytes = b""
    rename_version: str = ""
    event: str = "ObjectCreated:Put"


class DeleteObject(Command, frozen=True):
    settings: Settings
    key: bytes
    version: str = ""
    owner: str = ""
    conditions: Conditions = NO_CONDITIONS
    bypass: bool = False


class Judged(msgspec.Struct, frozen=True):
    """What lifecycle looked at when it judged a version: the revision of the bucket's settings, its rules among
    them, the version's tags, and how many newer versions that are not current a rule keeps. What is otherwise by
    now stays."""

    revision: int
    tags: dict[str, str]
    kept: int = 0


class DeleteIfNewest(Command, frozen=True):
    """The second half of a rename (an outbox action), or lifecycle's, under the settings that the partition knows.
    `cause` is the kind of the event that it makes; `judged` is None for a rename."""

    bucket: int
    key: bytes
    version: str
    notify: Notify | None = None
    cause: str = "ObjectRemoved"
    judged: Judged | None = None


class Expire(Command, frozen=True):
    """Remove for good a version that is not the current one, or a delete marker that is all there is of its key; by
    lifecycle, under the settings that the partition knows. What is otherwise by now is left alone."""

    bucket: int
    key: bytes
    version: str
    notify: Notify | None = None
    judged: Judged | None = None


class ChangeObject(Command, frozen=True):
    """New tags, a new ACL, retention (mode, end in ms; empty for none) or legal hold of a version that stays as it is:
    the newest, or the one named. None leaves it. `bypass` is of governance, in deletes too. `seen` is the suffix of
    the version that was looked at for this, where it must be that one still. `storage_class` is lifecycle's, `judged`
    as in Expire: a `version` that is named must not be the current one then."""

    settings: Settings
    key: bytes
    version: str = ""
    tags: dict[str, str] | None = None
    acl: str | None = None
    retention: tuple[str, int] | None = None
    hold: bool | None = None
    bypass: bool = False
    seen: bytes = b""
    storage_class: str = ""
    judged: Judged | None = None


class Rewrap(Command, frozen=True):
    """The key of an object's or upload's row is wrapped anew: `before` by `after`, and nothing where it is another by
    now."""

    row: bytes
    before: str
    after: str


class CreateUpload(Command, frozen=True):
    settings: Settings
    key: bytes
    upload: bytes
    row: Upload


class PutPart(Command, frozen=True):
    settings: Settings
    key: bytes
    upload: bytes
    extent: Extent
    inline: bytes = b""
    blobs: list[NewBlob] = []
    granted: list[bytes] = []
    brought: str = ""


class CompleteUpload(Command, frozen=True):
    """`row.extents` are the parts as the gateway read them; the primary checks that they are still those."""

    settings: Settings
    key: bytes
    upload: bytes
    row: Object
    conditions: Conditions = NO_CONDITIONS


class AbortUpload(Command, frozen=True):
    settings: Settings
    key: bytes
    upload: bytes
    created_before_ms: int = 0


# -- references and content


class Claim(msgspec.Struct, frozen=True):
    """A reference to take: blob, its new random id, and who will hold it."""

    blob: bytes
    reference: bytes
    partition: int
    bucket: int
    key: bytes
    upload: bytes = b""


class TakeReferences(Command, frozen=True):
    claims: list[Claim]


class DropReferences(Command, frozen=True):
    references: list[tuple[bytes, bytes]]


class LetGo(Command, frozen=True):
    """One piece of what a row of the table GONE names; sent by the partition's primary to itself (metadata/gone.py)."""

    row: bytes


class PublishContent(Command, frozen=True):
    sha256: bytes
    partition: int
    blob: bytes
    size: int


class UnpublishContent(Command, frozen=True):
    sha256: bytes
    blob: bytes


class RefuseReference(Command, frozen=True):
    """Asked by the auditor of the claiming partition (rule C3)."""

    bucket: int
    key: bytes
    upload: bytes
    blob: bytes
    reference: bytes


class RefuseBlob(Command, frozen=True):
    """Asked by the auditor before it frees shards that no row names (rule C3)."""

    blob: bytes


class NeedHeal(Command, frozen=True):
    """Shards of a blob were found missing or damaged. Answers whether the blob is still there."""

    blob: bytes
    positions: list[int]


class Healed(Command, frozen=True):
    """These shards were made again and are durable. Answers whether the blob is still there (rule D6).

    In a cluster `stores` names the store that has each.
    """

    blob: bytes
    positions: list[int]
    stores: list[str] = []


class ForgetRows(Command, frozen=True):
    """Delete rows that have served: outbox actions that are done, events that were sent, refusals that expired."""

    rows: list[bytes]


class Recounted(Command, frozen=True):
    """What counters lack of the older rows, by bucket, as it was found once (repairs.py)."""

    saved: list[tuple[int, int]]


class ForgetAnswers(Command, frozen=True):
    """Drop some of the answers that are kept long enough, and decide no command that is so old any more (R12). Answers
    whether there may be more of them."""


# -- buckets, in partition 0 but for the two that go to each


class CreateBucket(Command, frozen=True):
    name: str
    owner: str
    max_per_owner: int
    max_total: int
    lock: bool = False
    documents: dict[str, str] = {}


class SetVersioning(Command, frozen=True):
    name: str
    versioning: str


class SetDocument(Command, frozen=True):
    """A setting that only gateways and lifecycle read; empty removes it. `seen` are other settings that it was judged
    by, with their texts: where one is another by now, this one is refused."""

    name: str
    setting: str
    document: str
    seen: dict[str, str] = {}


class SetLock(Command, frozen=True):
    """Object lock for good, with the document of the default retention; empty for none."""

    name: str
    document: str


class SpreadSettings(Command, frozen=True):
    """Make a partition know the settings before the call that changed them returns (rule L2)."""

    settings: Settings


class BeginDelete(Command, frozen=True):
    name: str
    token: bytes


class CloseBucket(Command, frozen=True):
    """Refused with BucketNotEmpty where the partition holds versions (rule L3)."""

    bucket: int
    token: bytes


class ReopenBucket(Command, frozen=True):
    bucket: int
    token: bytes


class UndoDelete(Command, frozen=True):
    """The bucket is in use: nobody may end this deletion as done any more. Answers whether it was under way."""

    name: str
    token: bytes


class EndDelete(Command, frozen=True):
    """Answers whether the deletion ended so: as done, or (not `done`) as undone."""

    name: str
    token: bytes
    done: bool


# -- identity and jobs, in partition 0


class PutUser(Command, frozen=True):
    """This and the next three are what the admin port of 0.7 sends, on a gateway that is not upgraded yet."""

    name: str
    grants: list[Grant]
    enabled: bool = True
    create: bool = False


class DeleteUser(Command, frozen=True):
    name: str


class PutAccessKey(Command, frozen=True):
    access_key: str
    user: str
    secret: str


class DeleteAccessKey(Command, frozen=True):
    access_key: str
    user: str = ""


class ChangeAccounts(Command, frozen=True):
    """Put and delete rows of users, groups, roles, policies, providers and access keys, if those that were `seen` are
    still as they were. Answers whether it was done."""

    seen: list[tuple[bytes, bytes | None]]
    rows: list[tuple[bytes, bytes | None]]


class NoteUses(Command, frozen=True):
    """When access keys were used: keys that are gone are left out."""

    uses: list[tuple[str, LastUse]]


class PutJob(Command, frozen=True):
    """A job, or its next state in place of the one `before`. Answers Taken(False), and keeps nothing, where that is not
    its state any more: it was forgotten, or somebody else goes on with it."""

    id: str
    job: Job
    before: Job | None = None


class DeleteJob(Command, frozen=True):
    id: str


# -- answers


class Done(msgspec.Struct, tag=True, frozen=True):
    """The command took effect."""


class Written(msgspec.Struct, tag=True, frozen=True):
    """An object version was written. `version` is empty in buckets that never had versioning."""

    version: str
    etag: str


class Deleted(msgspec.Struct, tag=True, frozen=True):
    version: str = ""
    marker: bool = False


class Taken(msgspec.Struct, tag=True, frozen=True):
    """Whether every reference was granted; none is where one is not."""

    granted: bool


class BucketMade(msgspec.Struct, tag=True, frozen=True):
    bucket: Bucket


class UserKnown(msgspec.Struct, tag=True, frozen=True):
    user: User
    grants: list[Grant]


class KeyKnown(msgspec.Struct, tag=True, frozen=True):
    key: AccessKey


class Refused(msgspec.Struct, tag=True, frozen=True):
    code: str
    message: str = ""


class Stale(msgspec.Struct, tag=True, frozen=True):
    """The partition knows newer bucket settings than the command carries."""


AnyCommand = (
    PutObject
    | DeleteObject
    | DeleteIfNewest
    | Expire
    | ChangeObject
    | Rewrap
    | SetDocument
    | CreateUpload
    | PutPart
    | CompleteUpload
    | AbortUpload
    | TakeReferences
    | DropReferences
    | LetGo
    | PublishContent
    | UnpublishContent
    | RefuseReference
    | RefuseBlob
    | NeedHeal
    | Healed
    | ForgetRows
    | Recounted
    | ForgetAnswers
    | CreateBucket
    | SetVersioning
    | SetLock
    | SpreadSettings
    | BeginDelete
    | CloseBucket
    | ReopenBucket
    | UndoDelete
    | EndDelete
    | PutUser
    | DeleteUser
    | PutAccessKey
    | DeleteAccessKey
    | ChangeAccounts
    | NoteUses
    | PutJob
    | DeleteJob
)
AnyAnswer = Done | Written | Deleted | Taken | BucketMade | UserKnown | KeyKnown | Refused | Stale
