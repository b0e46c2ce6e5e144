//! The examples in the modules' manuals do what they say: each runs as a playbook against a host in memory.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kplay_modules::api::fake::Fake;
use kplay_modules::api::module::SignatureRequest;
use kplay_modules::api::{AnyModule, Blob, Checksum, CommandOutput, ModuleError, Perform, Upstream};

use crate::blobs::Blobs;
use crate::controller::Services;
use crate::diagnostic::Diagnostic;
use crate::lua::tests::{Book, Stage};
use crate::pki::Authorities;
use crate::plan::{PlannedTask, TaskResult};
use crate::secrets::Secrets;

/// The host that the examples speak of.
fn host() -> Fake {
    let well = |stdout: &str| CommandOutput { code: Some(0), stdout: stdout.to_owned(), ..CommandOutput::default() };
    // Certificates are signed by the real clock.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut host = Fake::new()
        .at(i64::try_from(now).unwrap())
        .file("/etc/hosts", "127.0.0.1\tlocalhost\n10.4.7.99\told\n")
        .file("/etc/hostname", "a\n")
        .file("/etc/kubernetes/old.conf", "")
        .file("/etc/kubernetes/cert/ca.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
        .file("/etc/kubernetes/cert/kube-scheduler.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
        .file("/etc/kubernetes/cert/kube-scheduler-key.pem", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
        .directory("/etc/nginx")
        .directory("/etc/ssh")
        .directory("/etc/ssl")
        .directory("/etc/sysctl.d")
        .directory("/etc/systemd/system")
        .directory("/opt")
        .directory("/srv")
        .sysctl("net.ipv4.ip_forward", "0")
        .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
        .package("etcd-server", "3.4.23")
        .offer("nginx-light", "1.22.1", |host| host)
        .offer("libnginx-mod-stream", "1.22.1", |host| host)
        .command("uptime", well("up 1 day\n"))
        .command("systemd-analyze", well(""))
        .command_that("mkdir /srv/data", well(""), |host| host.directory("/srv/data"))
        .command_that("/bin/sh -c", well(""), |host| host.file("/tmp/users.sum", "0 -"));
    host.blob("");
    for content in ["binary", "v1\n"] {
        host.blob(content);
    }
    host
}

/// The files that the examples speak of.
fn book(body: &str) -> Book {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("kubernetes/server/bin/kubelet", "binary"), ("kubernetes/server/bin/kubelet.docker_tag", "v1\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let archive = String::from_utf8(builder.into_inner().unwrap()).unwrap();
    Book::run(body)
        .inventory("all:\n  vars: { bootstrap_token: 07401b.f395accd246ae52d }\n  hosts:\n    a:\n")
        .file("files/kubernetes-server-linux-amd64.tar.gz", &archive)
        .file("templates/nginx.conf.j2", "listen {{ port }};\n")
}

/// Real authorities in a folder of the test's own.
struct Signing {
    authorities: Arc<Authorities>,
    folder: PathBuf,
}

impl Services for Signing {
    fn authority(&self, folder: &Path) -> Result<Option<String>, ModuleError> {
        let authority = self.authorities.open_or_make(&self.folder.join(folder)).map_err(|error| ModuleError::argument(error.message))?;
        Ok(Some(authority.certificate_pem().to_owned()))
    }

    fn download(&self, url: &str, _: &Checksum, _: Option<&Path>, _: u64) -> Result<PathBuf, ModuleError> {
        Err(ModuleError::argument(format!("`{url}` cannot be had")))
    }
}

/// What a host gets from the controller while it does a task.
struct Controller<'a> {
    blobs: &'a Blobs,
    signing: &'a Signing,
    signature: Option<SignatureRequest>,
}

impl Upstream for Controller<'_> {
    fn blob(&mut self, blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        match self.blobs.open(&blob.digest) {
            Some(Ok(reader)) => Ok(reader),
            _ => Err(ModuleError::host("there is no such content")),
        }
    }

    fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError> {
        let mut wanted = self.signature.clone().ok_or_else(|| ModuleError::host("nothing is to be signed"))?;
        wanted.authority = self.signing.folder.join(&wanted.authority);
        self.signing.authorities.sign(&wanted, request).map_err(|error| ModuleError::host(error.message))
    }

    fn deliver(&mut self, content: &mut dyn Read) -> Result<(), ModuleError> {
        std::io::copy(content, &mut std::io::sink()).map(|_| ()).map_err(|error| ModuleError::host(error.to_string()))
    }
}

/// Does a task as an agent does, proof included.
fn perform(task: &PlannedTask, host: &mut Fake, upstream: &mut Controller<'_>) -> Result<TaskResult, ModuleError> {
    let entry = kplay_modules::find(&task.wire.module).ok_or_else(|| ModuleError::host("no such module"))?;
    let arguments = serde_json::from_str(&task.wire.arguments).map_err(|error| ModuleError::argument(error.to_string()))?;
    let module: Box<dyn AnyModule> = (entry.parse)(arguments)?;
    let proposal = module.check(host)?;
    for change in &proposal.changes {
        host.perform(change, upstream)?;
    }
    if !proposal.repeating {
        assert_eq!(module.check(host)?.changes, [], "{} proposes again", task.wire.name);
    }
    Ok(TaskResult::Done { changed: !proposal.changes.is_empty(), skipped: false, output: proposal.output.into() })
}

#[test]
fn examples_in_manuals_run_and_converge() {
    for entry in kplay_modules::REGISTRY {
        let manual = kplay_modules::manual(entry.name).unwrap();
        let examples: Vec<&str> = manual.split("```lua\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!examples.is_empty(), "`{}` has no example", entry.name);
        // Somebody has to listen where an example waits for that.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("port = {}", listener.local_addr().unwrap().port());
        for example in examples {
            let example = &example.replace("port = 22", &port);
            let folder = tempfile::tempdir().unwrap();
            let authorities = Arc::new(Authorities::new(Default::default()));
            let signing = |folder: &Path| Signing { authorities: Arc::clone(&authorities), folder: folder.to_owned() };
            let (blobs, book, mut host) = (Arc::new(Blobs::default()), book(example), host());
            let upstream = signing(folder.path());
            let mut program = book
                .load_with(Arc::clone(&blobs), Box::new(signing(folder.path())), &Secrets::default())
                .unwrap_or_else(|error| panic!("`{}`: {}", entry.name, book.shown(&error)));
            let mut called = 0;
            let answer = |task: &PlannedTask| {
                called += usize::from(task.wire.module == entry.name);
                let mut upstream = Controller { blobs: &blobs, signing: &upstream, signature: task.signature.clone() };
                perform(task, &mut host, &mut upstream).unwrap_or_else(|error| TaskResult::Failed {
                    error: Diagnostic::host(error.message),
                    ignored: false,
                    output: Default::default(),
                })
            };
            let mut failures = Vec::new();
            Stage { log: Vec::new(), answer }.perform_with(&mut program, &mut |error| failures.push(book.shown(error)));
            assert!(failures.is_empty(), "`{}`: {}", entry.name, failures.join("\n"));
            assert!(called > 0, "the example of `{}` does not call it", entry.name);
        }
    }
}
