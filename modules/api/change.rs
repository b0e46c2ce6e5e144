//! The closed set of changes: the only things that a run ever does to a host.
//!
//! A `Change` is data. It is printed (`report/diff.rs` of the controller), folded into a forecast (`forecast.rs`), performed
//! (`machine.rs`), inverted (`journal.rs`), each in one place. A change carries all that performing it needs: names are
//! resolved and sources looked up by the check that proposes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::inspect::Command;
use super::types::{Attributes, Blob, Content, Digest, Entry};

/// One thing to do to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Puts a file in place atomically: written beside it, given attributes, renamed over it.
    WriteFile(WriteFile),
    /// Changes mode or owners of what is there (a link's target is never touched).
    SetAttributes {
        /// The entry.
        path: PathBuf,
        /// What it has.
        before: Attributes,
        /// What it shall have.
        after: Attributes,
    },
    /// Makes one directory; its parent exists or is made by an earlier change.
    MakeDirectory {
        /// The directory.
        path: PathBuf,
        /// Mode and owners.
        attributes: Attributes,
    },
    /// Puts a symbolic link in place atomically, over a file or link, never over a directory.
    Symlink {
        /// The link.
        path: PathBuf,
        /// What it holds.
        target: PathBuf,
        /// What was there.
        before: Option<Entry>,
    },
    /// Removes a file, a link, or a directory with all that is below it; never follows links.
    Remove {
        /// The entry.
        path: PathBuf,
        /// What was there.
        before: Entry,
    },
    /// Sets the time of last change to now.
    Touch {
        /// The file, which exists.
        path: PathBuf,
    },
    /// Unpacks members of an archive.
    Unpack(Unpack),
    /// Downloads a file on the host itself.
    Download(Download),
    /// Copies a file of the host to the controller.
    Fetch {
        /// The file on the host.
        path: PathBuf,
        /// Where it goes on the controller.
        dest: PathBuf,
        /// What it contains.
        content: Blob,
    },
    /// Acts on a unit and waits for systemd's job to end.
    Unit {
        /// Full unit name.
        unit: String,
        /// What to do.
        action: UnitAction,
        /// Why, in a few words (`/etc/nginx/nginx.conf changed`); empty when the action says it all.
        reason: String,
        /// What to record when the unit has been started or reloaded.
        record: Option<Record>,
        /// Seconds to wait for systemd's job; 0 leaves that to the unit's own limits.
        timeout: u64,
    },
    /// Makes systemd read its unit files again.
    ReloadDaemon {
        /// Why.
        reason: String,
    },
    /// Sets a kernel parameter's live value.
    SetKernelParameter {
        /// Dotted name.
        key: String,
        /// Its value now.
        before: String,
        /// Its value to be.
        after: String,
    },
    /// Installs and removes packages in one transaction of the package manager.
    Packages(Packages),
    /// Creates, changes or removes a user.
    User {
        /// Login name.
        name: String,
        /// What is there now.
        before: Option<UserSpec>,
        /// What shall be there; `None` removes.
        after: Option<UserSpec>,
        /// On removal: also the home directory.
        remove_home: bool,
    },
    /// Creates, changes or removes a group.
    Group {
        /// Name.
        name: String,
        /// Number now, when the group exists.
        before: Option<u32>,
        /// What shall be there; `None` removes.
        after: Option<GroupSpec>,
    },
    /// Makes a key on the host where one is missing, has the controller sign, puts both files in place.
    IssueCertificate(IssueCertificate),
    /// Runs a command of the user's.
    Run(Run),
}

/// See [`Change::WriteFile`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFile {
    /// The file.
    pub path: PathBuf,
    /// What it shall contain.
    pub content: Content,
    /// Mode and owners.
    pub attributes: Attributes,
    /// What is there now.
    pub before: Option<Entry>,
    /// Digest of what is there now, when it is a file.
    pub before_digest: Option<Digest>,
    /// Whether the content must never be shown.
    pub secret: bool,
}

/// See [`Change::Unpack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpack {
    /// The archive.
    pub archive: Blob,
    /// Its file name, for messages and its format.
    pub name: String,
    /// The folder to unpack into; it exists or is made by an earlier change.
    pub dest: PathBuf,
    /// Leading path components dropped from member names.
    pub strip: u32,
    /// The members that are missing or differ, parents first, paths relative to `dest`.
    pub members: Vec<Member>,
}

/// One entry that an archive shall leave on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Path relative to the folder unpacked into.
    pub path: PathBuf,
    /// What it is.
    pub kind: MemberKind,
    /// Mode and owners.
    pub attributes: Attributes,
    /// What lies there now.
    pub before: Option<Entry>,
}

/// The kinds of archive members kplay unpacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberKind {
    /// A file with its digest and size.
    File(Digest, u64),
    /// A directory.
    Directory,
    /// A symbolic link and what it holds.
    Symlink(PathBuf),
}

/// See [`Change::Download`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Where from: `https://`, `http://` or `file://`.
    pub url: String,
    /// What it must be.
    pub digest: Digest,
    /// Where to.
    pub path: PathBuf,
    /// Mode and owners.
    pub attributes: Attributes,
    /// What lies there now.
    pub before: Option<Entry>,
    /// PEM file on the host with the authorities to trust, instead of the usual ones.
    pub ca: Option<PathBuf>,
    /// Seconds.
    pub timeout: u64,
}

/// What can be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnitAction {
    /// `systemctl start`
    Start,
    /// `systemctl stop`
    Stop,
    /// `systemctl restart`
    Restart,
    /// `systemctl reload`
    Reload,
    /// `systemctl enable`
    Enable,
    /// `systemctl disable`
    Disable,
    /// `systemctl mask`
    Mask,
    /// `systemctl unmask`
    Unmask,
}

impl UnitAction {
    /// Returns systemctl's word for it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Mask => "mask",
            Self::Unmask => "unmask",
        }
    }
}

/// What the agent writes down once a change is performed, so that a later check can tell what has already been done.
/// `Inspect::record` reads it back. The value may depend on the state right after the change (a unit's new invocation).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Under which name (`unit/nginx.service`, `command/…`).
    pub key: String,
    /// The files whose digests, taken just before the change is performed, are recorded; absent files are recorded as absent.
    pub paths: Vec<PathBuf>,
}

/// What a performed [`Record`] holds; kept as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The unit's invocation after the change, or empty for a command.
    pub invocation: String,
    /// When the unit's state had last changed then, nanoseconds since 1970; 0 when that is not known.
    #[serde(default)]
    pub state_changed: i64,
    /// Digest of each path; `None` for an absent one.
    pub digests: BTreeMap<PathBuf, Option<Digest>>,
}

/// See [`Change::Packages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// Packages to install, each `name` or `name=version`.
    pub install: Vec<String>,
    /// Packages to remove.
    pub remove: Vec<String>,
    /// Whether removed packages lose their configuration too.
    pub purge: bool,
    /// Whether the package lists are fetched first.
    pub update: bool,
    /// Whether services may start on installation.
    pub start_services: bool,
    /// Versions before, of those that are installed.
    pub before: BTreeMap<String, String>,
    /// Seconds.
    pub timeout: u64,
}

/// A user as it shall be; fields that are `None` are left as they are or as the system makes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// Number.
    pub uid: Option<u32>,
    /// Name of the primary group.
    pub group: Option<String>,
    /// Names of all supplementary groups, sorted; `None` leaves them.
    pub groups: Option<Vec<String>>,
    /// Home directory.
    pub home: Option<PathBuf>,
    /// Login shell.
    pub shell: Option<String>,
    /// Comment field.
    pub comment: Option<String>,
    /// Whether a system user is created.
    pub system: bool,
    /// Whether the home directory is created.
    pub create_home: bool,
    /// Password hash as crypt(3) makes it; never shown.
    pub password_hash: Option<String>,
    /// When the password was changed and how it ages: the fields of `/etc/shadow` behind the hash. Only undo sets them.
    #[serde(default)]
    pub aging: Option<String>,
}

/// A group as it shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Number; `None` leaves it to the system.
    pub gid: Option<u32>,
    /// Whether a system group is created.
    pub system: bool,
}

/// See [`Change::IssueCertificate`]. The specification itself stays on the controller: a host cannot ask for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueCertificate {
    /// Where the certificate goes.
    pub certificate: PathBuf,
    /// Where its key goes.
    pub key: PathBuf,
    /// Which kind of key to make: `rsa:2048`, `ecdsa:p256` …
    pub key_type: String,
    /// Whether a new key is made; otherwise the one on the host is used.
    pub new_key: bool,
    /// Subject's common name, for messages.
    pub common_name: String,
    /// Why, one line (`+SAN 10.4.7.23`, `expires in 12 d`).
    pub reason: String,
    /// Mode and owners of the certificate.
    pub certificate_attributes: Attributes,
    /// Mode and owners of the key.
    pub key_attributes: Attributes,
    /// What lies at the certificate's path now.
    pub certificate_before: Option<Entry>,
    /// What lies at the key's path now.
    pub key_before: Option<Entry>,
}

/// See [`Change::Run`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// Exit codes that count as success.
    pub ok_codes: Vec<i32>,
    /// A path that exists afterwards.
    pub creates: Option<PathBuf>,
    /// A path that does not exist afterwards.
    pub removes: Option<PathBuf>,
    /// What to record once it has succeeded.
    pub record: Option<Record>,
    /// Whether the command line must never be shown.
    pub secret: bool,
}

/// Which parts of a host a change touches in a way its data does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Footprint {
    /// Nothing beyond what the change says: a forecast is exact.
    Nothing,
    /// These paths, and all below them.
    Paths(Vec<PathBuf>),
    /// These units.
    Units(Vec<String>),
    /// These users and groups.
    Accounts(Vec<String>),
    /// These kernel parameters.
    KernelParameters(Vec<String>),
    /// Files of the system and units, as packages and running services touch them.
    System,
    /// Anything at all.
    Anything,
}

impl Change {
    /// Returns what the change touches beyond what it says. Wherever this is not `Nothing`, an apply performs the change
    /// before it checks the next task, and a forecast lays a cloud.
    pub fn footprint(&self) -> Footprint {
        match self {
            Self::Run(run) => match (&run.creates, &run.removes) {
                (None, None) => Footprint::Anything,
                (creates, removes) => Footprint::Paths(creates.iter().chain(removes).cloned().collect()),
            },
            Self::Packages(_) => Footprint::System,
            Self::IssueCertificate(issue) => Footprint::Paths(vec![issue.certificate.clone(), issue.key.clone()]),
            Self::User { after: Some(spec), .. } if spec.create_home => Footprint::Paths(spec.home.iter().cloned().collect()),
            _ => Footprint::Nothing,
        }
    }

    /// Returns whether an apply ends its group of foreseen changes after this one: its outcome, or what it sets going, has
    /// to be seen before the next task is checked.
    pub fn ends_group(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Packages(_)
                | Self::Unit { .. }
                | Self::ReloadDaemon { .. }
                | Self::IssueCertificate(_)
                | Self::User { .. }
                | Self::Group { .. }
        )
    }
}
