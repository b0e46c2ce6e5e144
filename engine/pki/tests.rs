//! Authorities and what they sign, compared with cfssl's and judged by OpenSSL where these are installed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use kplay_modules::api::fake::Desk;
use kplay_modules::api::issue::{KeyType, make_request};
use kplay_modules::api::module::SignatureRequest;
use kplay_modules::cert::spec::CertificateSpec;
use kplay_modules::find;
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::*;

/// The certification request of a kube-apiserver, as cfssl reads it.
const REQUEST: &str = r#"{
    "CN": "k8s-apiserver",
    "hosts": ["127.0.0.1", "192.168.0.1", "kubernetes.default", "kubernetes.default.svc.cluster.local", "10.4.7.10", "::1"],
    "key": { "algo": "rsa", "size": 2048 },
    "names": [{ "C": "CN", "ST": "beijing", "L": "beijing", "O": "organizational", "OU": "organizational units" }]
}"#;

/// That of the document's client, which has no names.
const CLIENT: &str = r#"{
    "CN": "k8s-node",
    "hosts": [
    ],
    "key": { "algo": "rsa", "size": 2048 },
    "names": [{ "C": "CN", "ST": "beijing", "L": "beijing", "O": "organizational", "OU": "organizational units" }]
}"#;

const CONFIG: &str = r#"{ "signing": { "default": { "expiry": "8760h" }, "profiles": {
    "server": { "expiry": "175200h", "usages": ["signing", "key encipherment", "server auth"] },
    "client": { "expiry": "8760h", "usages": ["signing", "key encipherment", "client auth"] },
    "peer": { "expiry": "20h", "usages": ["signing", "key encipherment", "server auth", "client auth"] } } } }"#;

/// Returns the specification that the module `cert` makes of a request file and a profile.
fn specification(request: &str, profile: &str) -> CertificateSpec {
    let desk = Desk::new().file("files/csr.json", request).file("files/ca-config.json", CONFIG);
    let arguments =
        json!({ "authority": "x", "path": "/a", "key": "/b", "csr": "csr.json", "profiles_file": "ca-config.json", "profile": profile });
    let mut module = (find("cert").unwrap().parse)(arguments).unwrap();
    module.prepare(&desk).unwrap();
    serde_json::from_value(desk.expected_signatures().remove(0).specification).unwrap()
}

fn small(common_name: &str) -> CertificateSpec {
    CertificateSpec { common_name: common_name.to_owned(), key_type: "ecdsa:p256".to_owned(), ..specification(REQUEST, "peer") }
}

fn options() -> AuthorityOptions {
    AuthorityOptions { common_name: Some("tests".into()), key_type: KeyType::EcdsaP256, ..AuthorityOptions::default() }
}

/// Opens the authority in a folder, or makes it there.
fn kept(folder: &Path, options: &AuthorityOptions) -> Result<Authority> {
    let authority = Authority::open_or_make(folder, options)?;
    authority.save(options.passphrase.as_deref())?;
    Ok(authority)
}

/// Makes a key as a host does, and has a certificate for it signed; returns certificate and key.
fn issue(authority: &Authority, spec: &CertificateSpec) -> (String, String) {
    let (key, request) = make_request(None, &spec.key_type).unwrap();
    (authority.sign(spec, &request).unwrap(), key)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("version").output().is_ok()
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns what matters of a certificate, as text: all but the serial number, the key and the moment of issue.
fn described(pem: &str) -> String {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let validity = certificate.validity();
    let mut extensions: Vec<String> = certificate
        .extensions()
        .iter()
        .map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectAlternativeName(names) => {
                let names: BTreeSet<String> = names.general_names.iter().map(ToString::to_string).collect();
                format!("{} critical={} {names:?}", extension.oid, extension.critical)
            }
            // Each tool derives the identifier of the subject's own key in its way.
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(_) => {
                format!("{} critical={}", extension.oid, extension.critical)
            }
            other => format!("{} critical={} {other:?}", extension.oid, extension.critical),
        })
        .collect();
    extensions.sort();
    format!(
        "{:?}\n{}\n{}\n{:?}\n{}\n{}\n{}",
        certificate.version(),
        certificate.subject(),
        certificate.issuer(),
        certificate.signature_algorithm.algorithm,
        validity.not_after.timestamp() - validity.not_before.timestamp(),
        certificate.public_key().parsed().unwrap().key_size(),
        extensions.join("\n")
    )
}

#[test]
fn certificates_equal_those_of_cfssl() {
    if !installed("cfssl") {
        assert!(std::env::var_os("CI").is_none(), "cfssl is to be installed where `CI` is set");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("server.json"), REQUEST).unwrap();
    fs::write(folder.path().join("client.json"), CLIENT).unwrap();
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let own = AuthorityOptions { common_name: Some("tests".into()), organization: Some("od".into()), ..AuthorityOptions::default() };
    kept(&folder.path().join("own"), &own).unwrap();
    // An authority that cfssl has made, with its PKCS#1 or SEC1 key.
    for (name, key) in [("rsa", r#"{ "algo": "rsa", "size": 2048 }"#), ("ecdsa", r#"{ "algo": "ecdsa", "size": 384 }"#)] {
        let request = format!(r#"{{ "CN": "{name} ca", "key": {key}, "names": [{{ "C": "CN", "O": "od", "OU": "ops" }}] }}"#);
        fs::write(folder.path().join("ca.json"), request).unwrap();
        let made: serde_json::Value = serde_json::from_str(&run(folder.path(), "cfssl", &["gencert", "-initca", "ca.json"])).unwrap();
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("ca.pem"), made["cert"].as_str().unwrap()).unwrap();
        fs::write(folder.path().join(name).join("ca-key.pem"), made["key"].as_str().unwrap()).unwrap();
    }
    let (_, host_request) = make_request(None, "rsa:2048").unwrap();
    for authority in ["own", "rsa", "ecdsa"] {
        for (file, request, profile) in [
            ("server.json", REQUEST, "server"),
            ("server.json", REQUEST, "client"),
            ("server.json", REQUEST, "peer"),
            ("client.json", CLIENT, "client"),
        ] {
            let (ca, key) = (format!("-ca={authority}/ca.pem"), format!("-ca-key={authority}/ca-key.pem"));
            let profile_flag = format!("-profile={profile}");
            let made = run(folder.path(), "cfssl", &["gencert", &ca, &key, "-config=config.json", &profile_flag, file]);
            let theirs: serde_json::Value = serde_json::from_str(&made).unwrap();
            let opened = kept(&folder.path().join(authority), &options()).unwrap();
            let ours = opened.sign(&specification(request, profile), &host_request).unwrap();
            assert_eq!(described(&ours), described(theirs["cert"].as_str().unwrap()), "{authority} {file} {profile}");
            let dues = kplay_modules::cert::Dues {
                authority: Some(opened.certificate_pem()),
                spec: &specification(request, profile),
                renew_before: 0,
                issued_after: 0,
                now: certificate::now(),
            };
            let found = kplay_modules::cert::outdated(&dues, theirs["cert"].as_str(), theirs["key"].as_str()).unwrap();
            assert_eq!(found, [""; 0], "cfssl's certificate is as it shall be");
        }
    }
}

#[test]
fn openssl_verifies_certificates_of_every_kind_of_key() {
    if !installed("openssl") {
        assert!(std::env::var_os("CI").is_none(), "openssl is to be installed where `CI` is set");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for key_type in ["rsa:2048", "ecdsa:p256", "ecdsa:p384", "ed25519"] {
        let options = AuthorityOptions { key_type: key_type.parse().unwrap(), ..options() };
        let authority = kept(&at(key_type), &options).unwrap();
        let spec = CertificateSpec { key_type: key_type.to_owned(), ..specification(REQUEST, "server") };
        let (certificate, key) = issue(&authority, &spec);
        fs::write(at("leaf.pem"), certificate).unwrap();
        fs::write(at("leaf-key.pem"), key).unwrap();
        let ca = format!("{key_type}/ca.pem");
        run(
            folder.path(),
            "openssl",
            &["verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "10.4.7.10", "-CAfile", &ca, "leaf.pem"],
        );
        run(folder.path(), "openssl", &["verify", "-x509_strict", "-verify_hostname", "kubernetes.default", "-CAfile", &ca, "leaf.pem"]);
        let public = run(folder.path(), "openssl", &["pkey", "-in", "leaf-key.pem", "-pubout"]);
        assert_eq!(public, run(folder.path(), "openssl", &["x509", "-in", "leaf.pem", "-noout", "-pubkey"]), "{key_type}");
        let wrong = Command::new("openssl")
            .args(["verify", "-purpose", "sslclient", "-CAfile", &ca, "leaf.pem"])
            .current_dir(folder.path())
            .output();
        assert!(!wrong.unwrap().status.success(), "a server's certificate is none of a client");
    }
}

#[test]
fn an_authority_is_made_once_and_protected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pki/demo");
    assert!(Authority::open(&path, None).unwrap().is_none());
    // Eight kplays at once, none of which finds one: the first makes it, the others say so instead of signing with their own.
    let begun: Vec<Authority> = (0..8).map(|_| Authority::open_or_make(&path, &options()).unwrap()).collect();
    assert!(!path.exists(), "nothing is written before it is saved");
    let saved: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = begun.iter().map(|authority| scope.spawn(|| authority.save(None))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(saved.iter().filter(|saved| saved.is_ok()).count(), 1);
    assert!(saved.iter().flat_map(|saved| saved.as_ref().err()).all(|error| error.message.starts_with("another kplay has just made")));
    let made = [kept(&path, &options()).unwrap().certificate_pem().to_owned()];
    assert!(begun.iter().any(|authority| authority.certificate_pem() == made[0]));
    assert_eq!((mode(&path), mode(&path.join("ca.pem")), mode(&path.join("ca-key.pem"))), (0o700, 0o644, 0o600));
    let left: BTreeSet<String> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [".lock", "ca-key.pem", "ca.pem"]);
    let (_, pem) = parse_x509_pem(made[0].as_bytes()).unwrap();
    let root = pem.parse_x509().unwrap();
    assert_eq!(root.subject().to_string(), "CN=tests");
    let usage = root.key_usage().unwrap().unwrap();
    assert!(root.is_ca() && usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign() && !usage.value.digital_signature());
}

#[test]
fn a_signature_takes_nothing_from_the_request_but_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let authority = kept(folder.path(), &options()).unwrap();
    let key = KeyType::EcdsaP256.generate().unwrap();
    // A host that asks for more than its task says: another name, other addresses, to be an authority itself.
    let mut greedy = rcgen::CertificateParams::new(vec!["evil.example.com".to_owned(), "10.9.9.9".to_owned()]).unwrap();
    greedy.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    greedy.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    greedy.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let request = greedy.serialize_request(&key).unwrap();
    let pem = authority.sign(&small("node"), request.der()).unwrap();
    let text = described(&pem);
    assert!(!text.contains("evil") && !text.contains("10.9.9.9") && !text.contains("masters") && !text.contains("ca: true"), "{text}");
    assert_eq!(text, described(&authority.sign(&small("node"), &make_request(Some(&key.serialize_pem()), "ecdsa").unwrap().1).unwrap()));
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = kept(folder.path(), &options()).unwrap();
    let said = |request: &[u8]| authority.sign(&small("node"), request).unwrap_err().message;
    let (_, good) = make_request(None, "ecdsa:p256").unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(said(&forged), "the request for the certificate `node` is refused: its signature does not prove that the host has the key");
    assert_eq!(said(b"nonsense"), "the request for the certificate `node` is refused: it is not a certification request");
    assert_eq!(said(&[]), "the request for the certificate `node` is refused: it is not a certification request");
    assert_eq!(said(&[good.as_slice(), b"x"].concat()), "the request for the certificate `node` is refused: something follows it");
    let (_, other) = make_request(None, "ecdsa:p384").unwrap();
    assert_eq!(
        said(&other),
        "the request for the certificate `node` is refused: its key is of the type ecdsa:p384, and ecdsa:p256 was asked for"
    );
}

#[test]
fn serial_numbers_are_random_and_validity_starts_before_now() {
    let folder = tempfile::tempdir().unwrap();
    let authority = kept(folder.path(), &options()).unwrap();
    let (_, request) = make_request(None, "ecdsa:p256").unwrap();
    let mut serials = BTreeSet::new();
    for _ in 0..20 {
        let pem = authority.sign(&small("node"), &request).unwrap();
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert!(certificate.raw_serial().len() <= 20 && certificate.raw_serial()[0] < 0x80, "{:?}", certificate.raw_serial());
        serials.insert(certificate.raw_serial().to_vec());
        let behind = certificate::now() - certificate.validity().not_before.timestamp();
        assert!((300..310).contains(&behind), "{behind}");
    }
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().map(Vec::len).max() >= Some(19));
}

#[test]
fn an_authority_that_cannot_be_used_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let good = kept(&at("good"), &options()).unwrap();
    let (leaf, leaf_key) = issue(&good, &small("leaf"));
    let other = KeyType::EcdsaP256.generate().unwrap().serialize_pem();
    let ca_key = fs::read_to_string(at("good/ca-key.pem")).unwrap();
    let cases = [
        ("no-key", Some(good.certificate_pem()), None, "has `ca.pem`, but no `ca-key.pem`"),
        ("no-certificate", None, Some(ca_key.as_str()), "has `ca-key.pem`, but no `ca.pem`"),
        ("mixed", Some(good.certificate_pem()), Some(other.as_str()), "cannot be used: its certificate and its key do not belong together"),
        ("leaf", Some(leaf.as_str()), Some(leaf_key.as_str()), "cannot be used: its certificate is not an authority's"),
        ("garbage", Some("hello"), Some(ca_key.as_str()), "cannot be used: its certificate is not one in PEM form"),
        ("swapped", Some(ca_key.as_str()), Some(good.certificate_pem()), "cannot be used: there is no private key in PEM form in it"),
    ];
    for (name, certificate, key, message) in cases {
        fs::create_dir(at(name)).unwrap();
        certificate.inspect(|text| fs::write(at(name).join("ca.pem"), text).unwrap());
        key.inspect(|text| fs::write(at(name).join("ca-key.pem"), text).unwrap());
        let error = kept(&at(name), &options()).err().unwrap();
        assert_eq!(error.message, format!("the authority `{}` {message}", at(name).display()));
        assert!(!error.hints.is_empty() || name == "swapped", "{name}");
    }
    fs::write(at("file"), "").unwrap();
    assert!(kept(&at("file"), &options()).err().unwrap().message.contains("not a directory"));
}

#[test]
fn a_passphrase_encrypts_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let sealed = AuthorityOptions { passphrase: Some("open sesame".into()), ..options() };
    let made = kept(folder.path(), &sealed).unwrap();
    assert!(!folder.path().join("ca-key.pem").exists());
    let key = fs::read(folder.path().join("ca-key.pem.age")).unwrap();
    assert!(!String::from_utf8_lossy(&key).contains("PRIVATE KEY"));
    assert_eq!(kept(folder.path(), &sealed).unwrap().certificate_pem(), made.certificate_pem());
    assert!(Authority::open(folder.path(), None).err().unwrap().message.ends_with("is encrypted, and no passphrase was given"));
    assert!(Authority::open(folder.path(), Some("guess")).err().unwrap().message.contains("cannot decrypt"));
}

#[test]
fn a_set_of_authorities_signs_what_was_announced() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = Authorities::new(options());
    assert!(authorities.open(folder.path()).unwrap().is_none());
    let wanted = SignatureRequest { authority: folder.path().to_owned(), specification: serde_json::to_value(small("node")).unwrap() };
    let pem = authorities.sign(&wanted, &make_request(None, "ecdsa:p256").unwrap().1).unwrap();
    let authority = authorities.open(folder.path()).unwrap().unwrap();
    let (_, ca) = parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
    let (_, leaf) = parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
    leaf.parse_x509().unwrap().verify_signature(Some(ca.public_key())).unwrap();
    let wrong = SignatureRequest { authority: folder.path().to_owned(), specification: json!({ "common_name": 1 }) };
    assert!(authorities.sign(&wrong, &[]).unwrap_err().message.starts_with("the specification of a certificate cannot be read"));
}
