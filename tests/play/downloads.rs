//! Downloads from a web server on loopback: by the controller and by hosts, and everything that goes wrong on the way.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use kplay_modules::api::Digest;

use crate::hosts;
use crate::support::kplay::Kplay;

/// A web server that has one file, moved, cut short, or not at all, and keeps the paths that were asked for.
struct Web {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn with(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away early is none of the server's business.
                let _ = answer(stream, &content, &seen);
            }
        });
        Self { port, asked }
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, content: &[u8], asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().transpose()?.and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    asked.lock().unwrap().push(path.clone());
    let head = |status: &str, more: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    match path.as_str() {
        "/file.tar.gz" => {
            stream.write_all(head("200 OK", "", content.len()).as_bytes())?;
            stream.write_all(content)
        }
        "/moved" => stream.write_all(head("302 Found", "Location: /file.tar.gz\r\n", 0).as_bytes()),
        "/short" => {
            stream.write_all(head("200 OK", "", content.len()).as_bytes())?;
            stream.write_all(&content[..content.len() / 2])
        }
        _ => stream.write_all(head("404 Not Found", "", 0).as_bytes()),
    }
}

/// A play that downloads with `arguments` to `/opt/file`.
fn download(kplay: Kplay, arguments: &str) -> Kplay {
    kplay.playbook(&format!(
        "play {{ name = 'get', hosts = 'all', run = function(host)\n\
         \x20 host:download({{ {arguments}, dest = '/file' }})\n\
         \x20 host:copy({{ dest = '/after', content = 'x' }})\n\
         end }}\n"
    ))
}

#[test]
fn the_controller_downloads_once_for_all_hosts_and_runs() {
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let web = Web::with(content.clone());
    let arguments = format!("url = '{}', sha256 = '{}'", web.url("moved"), Digest::of(&content).hex());
    let ran = download(hosts(&["a", "b"]), &arguments).env("KPLAY_STATE", "state").stdout_has("changed=2").run();
    assert_eq!(web.asked(), ["/moved", "/file.tar.gz"]);
    for host in ["a", "b"] {
        assert!(fs::read(ran.path(&format!("{host}/file"))).unwrap() == content);
        fs::remove_file(ran.path(&format!("{host}/file"))).unwrap();
    }
    let again = ran.then().args(["play.lua"]).env("KPLAY_STATE", "state").stdout_has("changed=1").run();
    assert_eq!(web.asked(), [""; 0], "it is in the cache: {}", again.stdout);
}

#[test]
fn each_host_downloads_for_itself() {
    let content = vec![b'x'; 1 << 20];
    let web = Web::with(content.clone());
    let arguments = format!("url = '{}', sha256 = '{}', on = 'host'", web.url("file.tar.gz"), Digest::of(&content).hex());
    let ran = download(hosts(&["a", "b"]), &arguments).stdout_has("download http://127.0.0.1:").run();
    assert_eq!(web.asked(), ["/file.tar.gz", "/file.tar.gz"]);
    let again = ran.then().args(["play.lua"]).stdout_has("ok=2  changed=0").run();
    assert_eq!(web.asked(), [""; 0]);
    assert!(fs::read(again.path("a/file")).unwrap() == content && fs::read(again.path("b/file")).unwrap() == content);
}

#[test]
fn what_goes_wrong_on_the_way_is_told_and_nothing_is_kept() {
    let content = vec![b'x'; 1 << 20];
    let web = Web::with(content.clone());
    let (right, wrong) = (Digest::of(&content).hex(), Digest::of(b"another").hex());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (url, digest, why) in [
        (web.url("gone"), &right, "cannot download `URL`: the server answers with status 404".to_owned()),
        (web.url("short"), &right, "the download of `URL` broke off after 524288 bytes: the server ended it early".to_owned()),
        (web.url("file.tar.gz"), &wrong, "what `URL` yields is not what was expected".to_owned()),
        (format!("http://127.0.0.1:{nobody}/x"), &right, "cannot download `URL`: connection refused".to_owned()),
    ] {
        let why = format!("error: {}\n", why.replace("URL", &url));
        let arguments = format!("url = '{url}', sha256 = '{digest}'");
        // The controller finds out before any host is touched …
        let refused =
            download(hosts(&["a"]), &arguments).env("KPLAY_STATE", "state").any_stdout().stderr_has(&why).stderr_has("play.lua:2");
        let refused = refused.status(1).run();
        assert_eq!(fs::read_dir(refused.path("a")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(refused.path("state/downloads")).unwrap().count(), 0, "{url}");
        // … a host when it gets there; what comes after is not done.
        let failed = download(hosts(&["a"]), &(arguments + ", on = 'host'")).stdout_has(&why).stdout_has("play.lua:2").status(2).run();
        assert!(!failed.path("a/file").exists() && !failed.path("a/after").exists(), "{url}");
        assert_eq!(fs::read_dir(failed.path("a")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count(), 0, "{url}");
    }
}

/// The role that installs Kubernetes, with an address as in the document, and the checksum that is published beside it.
#[test]
fn the_official_archive_comes_from_its_address() {
    let kplay = hosts(&["a"]);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |script: &str| {
        let ended = Command::new("sh").args(["-euc", script, "sh"]).arg(repository).current_dir(kplay.folder()).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    };
    let sha512 = run("mkdir -p kubernetes/server/bin roles; cp -a \"$1/roles/kubernetes-binaries\" roles; cd kubernetes
        for name in kube-apiserver kubectl kubelet; do echo $name > server/bin/$name; chmod 755 server/bin/$name; done
        echo image > server/bin/kube-apiserver.tar; echo sources > kubernetes-src.tar.gz; cd ..
        tar -czf archive kubernetes; sha512sum < archive | cut -c1-128");
    let mut archive = Vec::new();
    fs::File::open(kplay.folder().join("archive")).unwrap().read_to_end(&mut archive).unwrap();
    let web = Web::with(archive);
    let play = |checksum: &str| {
        format!(
            "play {{ name = 'binaries', hosts = 'all', run = function(host)\n\
             \x20 host:role('kubernetes-binaries', {{ version = 'v1.21.1', archive = '{}', checksum = '{checksum}', master_owner = '' }})\n\
             end }}\n",
            web.url("file.tar.gz")
        )
    };
    let state = |kplay: Kplay| kplay.env("KPLAY_STATE", "state");
    let folder = kplay.folder().join("a/usr/local");
    fs::create_dir_all(&folder).unwrap();
    let ran = state(kplay.playbook(&play(&format!("sha512:{sha512}")))).any_stdout().run();
    assert_eq!(fs::read_to_string(folder.join("bin/kubelet")).unwrap_or_default(), "", "links lead to `/`, which is not this folder");
    assert_eq!(fs::read_to_string(folder.join("kubernetes-server-v1.21.1/server/bin/kubelet")).unwrap(), "kubelet\n");
    assert!(!folder.join("kubernetes-server-v1.21.1/kubernetes-src.tar.gz").exists());
    let again = state(ran.then().args(["play.lua"])).stdout_has("changed=0").run();
    assert_eq!(web.asked(), ["/file.tar.gz"], "{}", again.stdout);

    let other = state(again.then().file("play.lua", &play(&sha512.replace(['0', '1'], "2"))).args(["play.lua"]));
    let other = other.any_stdout().stderr_has("yields is not what was expected").stderr_has("found    SHA-512 ").status(1).run();
    let none = state(other.then().file("play.lua", &play("")).args(["play.lua"]));
    none.any_stdout().stderr_has("`url` needs a `checksum`").status(1).run();
}
