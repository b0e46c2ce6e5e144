//! The cases of `cert`, on a host in memory, with a small authority of the tests' own.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    SubjectPublicKeyInfo,
};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::Example;
use crate::api::change::{Change, IssueCertificate};
use crate::api::fake::{Desk, Fake};
use crate::api::{AnyModule, Blob, ModuleError, Perform, Upstream};
use crate::find;

const DAY: i64 = 86_400;
/// When the tests' certificates are issued.
const ISSUED: i64 = 1_700_000_000;

pub(super) fn examples() -> Vec<Example> {
    let host = || Fake::new().directory("/etc/ssl").at(ISSUED + 600);
    vec![
        Example::new("issues a first certificate", arguments(json!({})))
            .on(host())
            .desk(desk())
            .signer(|request| Ok(sign(request, &Leaf::default()))),
        Example::new("keeps the key", arguments(json!({})))
            .on(host().file_with("/etc/ssl/app-key.pem", key("ecdsa:p256"), 0o640, 0, 0))
            .desk(desk())
            .signer(|request| Ok(sign(request, &Leaf::default()))),
        Example::new("mends modes", arguments(json!({ "mode": "0600" }))).on(issued(&Leaf::default())).desk(desk()),
        Example::new("makes folders", arguments(json!({ "path": "/srv/a/b.pem", "parents": true })))
            .on(host())
            .desk(desk())
            .signer(|request| Ok(sign(request, &Leaf::default()))),
    ]
}

/// What the tests' authority writes into a certificate.
#[derive(Clone)]
struct Leaf {
    common_name: &'static str,
    organization: Option<&'static str>,
    sans: Vec<&'static str>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    days: i64,
    other_authority: bool,
    is_ca: bool,
}

impl Default for Leaf {
    fn default() -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self {
            common_name: "app",
            organization: Some("x"),
            sans: vec!["app.example.com", "10.4.7.21"],
            usages,
            days: 100,
            other_authority: false,
            is_ca: false,
        }
    }
}

struct TestAuthority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(other: bool) -> &'static TestAuthority {
    static MADE: OnceLock<[TestAuthority; 2]> = OnceLock::new();
    &MADE.get_or_init(|| {
        [(), ()].map(|()| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "tests");
            let pem = params.self_signed(&key).unwrap().pem();
            TestAuthority { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem }
        })
    })[usize::from(other)]
}

fn sign(request: &[u8], leaf: &Leaf) -> String {
    let (_, request) = X509CertificationRequest::from_der(request).unwrap();
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw).unwrap();
    let time = |seconds| ASN1Time::from_timestamp(seconds).unwrap().to_datetime();
    let mut params = CertificateParams::new(leaf.sans.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organization) = leaf.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, leaf.common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages.clone_from(&leaf.usages);
    params.is_ca = if leaf.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.not_before = time(ISSUED);
    params.not_after = time(ISSUED + leaf.days * DAY);
    params.serial_number = Some(SerialNumber::from_slice(&[1, 2, 0xab]));
    params.signed_by(&key, &authority(leaf.other_authority).issuer).unwrap().pem()
}

fn key(key_type: &str) -> String {
    crate::api::issue::make_request(None, key_type).unwrap().0
}

/// Returns a host with a certificate and its key.
fn issued(leaf: &Leaf) -> Fake {
    let (key, request) = crate::api::issue::make_request(None, "ecdsa:p256").unwrap();
    with(sign(&request, leaf), key)
}

fn with(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Fake {
    Fake::new().at(ISSUED + 600).file("/etc/ssl/app.pem", certificate).file_with("/etc/ssl/app-key.pem", key, 0o600, 0, 0)
}

fn desk() -> Desk {
    Desk::new().authority("/controller/pki", &authority(false).pem)
}

#[expect(clippy::needless_pass_by_value, reason = "it is made where it is handed over")]
fn arguments(more: Value) -> Value {
    let mut arguments = json!({
        "authority": "pki", "path": "/etc/ssl/app.pem", "key": "/etc/ssl/app-key.pem", "common_name": "app", "organization": "x",
        "sans": ["10.4.7.21", "APP.example.com", "app.example.com"], "usages": "server", "key_type": "ecdsa:p256", "lifetime": "100d",
    });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

fn module(arguments: Value, desk: &Desk) -> Result<Box<dyn AnyModule>, ModuleError> {
    let mut module = (find("cert").unwrap().parse)(arguments)?;
    module.prepare(desk)?;
    Ok(module)
}

fn issue(more: Value, host: &Fake) -> Option<IssueCertificate> {
    let proposal = module(arguments(more), &desk()).unwrap().check(host).unwrap();
    proposal.changes.into_iter().find_map(|change| if let Change::IssueCertificate(issue) = change { Some(issue) } else { None })
}

/// Returns the reason, or an empty text, with `!` at its end when a new key would be made.
fn reason(more: Value, host: &Fake) -> String {
    issue(more, host).map(|issue| format!("{}{}", issue.reason, if issue.new_key { "!" } else { "" })).unwrap_or_default()
}

#[test]
fn a_certificate_that_is_as_it_shall_be_is_left_alone() {
    let proposal = module(arguments(json!({})), &desk()).unwrap().check(&issued(&Leaf::default())).unwrap();
    assert_eq!(proposal.changes, []);
    assert_eq!(proposal.output["not_after"], "2024-02-22T22:13:20Z");
    assert_eq!(proposal.output["days_left"], 99);
    assert_eq!(proposal.output["serial"], "0102ab");
    assert_eq!(proposal.output["fingerprint"].as_str().unwrap().len(), 64);
}

#[test]
fn every_difference_has_its_reason() {
    let cases = [
        (json!({ "common_name": "web" }), Leaf::default(), "CN app -> web"),
        (json!({ "organization": "y" }), Leaf::default(), "O x -> y"),
        (
            json!({ "organizational_unit": "u", "country": "CN", "state": "s", "locality": "l" }),
            Leaf::default(),
            "OU (none) -> u, C (none) -> CN, ST (none) -> s, L (none) -> l",
        ),
        (json!({}), Leaf { organization: None, ..Leaf::default() }, "O (none) -> x"),
        (json!({ "sans": ["app.example.com", "10.4.7.21", "10.4.7.23"] }), Leaf::default(), "+SAN 10.4.7.23"),
        (json!({ "sans": "app.example.com" }), Leaf::default(), "-SAN 10.4.7.21"),
        (json!({ "sans": ["::1", "b"] }), Leaf::default(), "+SAN ::1, +SAN b, -SAN 10.4.7.21, -SAN app.example.com"),
        (json!({ "sans": {} }), Leaf::default(), "-SAN 10.4.7.21, -SAN app.example.com"),
        (json!({ "usages": "both" }), Leaf::default(), "+usage client auth"),
        (json!({ "usages": "client" }), Leaf::default(), "+usage client auth, -usage server auth"),
        (json!({ "lifetime": "200d" }), Leaf::default(), "lifetime 100 d -> 200 d"),
        (json!({ "lifetime": "2401h" }), Leaf::default(), "lifetime 8640000 s -> 8643600 s"),
        (json!({}), Leaf { other_authority: true, ..Leaf::default() }, "the authority changed"),
        (json!({}), Leaf { is_ca: true, ..Leaf::default() }, "it is an authority's"),
        (json!({ "key_type": "ecdsa:p384" }), Leaf::default(), "key ecdsa:p256 -> ecdsa:p384!"),
        (json!({ "common_name": "web", "sans": "web" }), Leaf::default(), "CN app -> web, +SAN web, -SAN 10.4.7.21, -SAN app.example.com"),
    ];
    for (more, leaf, expected) in cases {
        assert_eq!(reason(more.clone(), &issued(&leaf)), expected, "{more}");
    }
}

#[test]
fn a_certificate_near_its_end_is_issued_again() {
    let host = issued(&Leaf::default());
    let at = |days: i64, more: Value| reason(more, &host.clone().at(ISSUED + days * DAY));
    assert_eq!(at(69, json!({})), "");
    assert_eq!(at(70, json!({})), "expires in 30 d");
    // It was issued five minutes after it became valid.
    assert_eq!(at(1, json!({ "issued_after": ISSUED + 300 })), "");
    assert_eq!(at(1, json!({ "issued_after": ISSUED + 301 })), "issued before 2023-11-14T22:18:21Z");
    let future = module(arguments(json!({ "issued_after": (ISSUED + DAY) * 1000 })), &desk()).unwrap().check(&host).unwrap_err();
    assert_eq!(future.argument.as_deref(), Some("issued_after"), "milliseconds: {}", future.message);
    assert_eq!(at(88, json!({})), "expires in 12 d");
    assert_eq!(at(88, json!({ "renew_before": "10d" })), "");
    assert_eq!(at(99, json!({ "renew_before": "0s" })), "");
    assert_eq!(at(99, json!({})), "expires in 24 h");
    assert_eq!(at(103, json!({ "renew_before": "0s" })), "expired 3 d ago");
    // A short lifetime is renewed at two thirds when nothing is said.
    let short = issued(&Leaf { days: 9, ..Leaf::default() });
    assert_eq!(reason(json!({ "lifetime": "9d" }), &short.clone().at(ISSUED + 5 * DAY)), "");
    assert_eq!(reason(json!({ "lifetime": "9d" }), &short.at(ISSUED + 7 * DAY)), "expires in 2 d");
}

#[test]
fn a_clock_that_is_behind_is_no_reason_to_issue() {
    let error = module(arguments(json!({})), &desk()).unwrap().check(&issued(&Leaf::default()).at(ISSUED - 60)).unwrap_err();
    assert_eq!(error.message, "the certificate is not valid before 2023-11-14T22:13:20Z, and the host's clock says 2023-11-14T22:12:20Z");
}

#[test]
fn a_key_is_kept_when_it_can_serve() {
    let (present, request) = crate::api::issue::make_request(None, "ecdsa:p256").unwrap();
    let certificate = sign(&request, &Leaf::default());
    let bare = || Fake::new().directory("/etc/ssl").at(ISSUED + 600);
    let cases = [
        (bare(), "not there!"),
        (bare().file("/etc/ssl/app-key.pem", &present), "not there"),
        (bare().file("/etc/ssl/app-key.pem", key("ed25519")), "not there, key ed25519 -> ecdsa:p256!"),
        (bare().file("/etc/ssl/app-key.pem", ""), "not there, the key cannot be read!"),
        (bare().file("/etc/ssl/app.pem", &certificate), "the key is not there!"),
        (with(&certificate, key("ecdsa:p256")), "key does not match!"),
        (with("", &present), "not a certificate"),
        (with([0xff, 0xfe], &present), "not a certificate"),
        (with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &present), "not a certificate"),
        (with(&present, &present), "not a certificate"),
        (with(&certificate, &present).link("/etc/ssl/app.pem", "/etc/ssl/other.pem"), "a link in its place"),
        (with(&certificate, &present).link("/etc/ssl/app-key.pem", "/etc/ssl/other.pem"), "a link in place of the key!"),
    ];
    for (host, expected) in cases {
        assert_eq!(reason(json!({}), &host), expected);
    }
}

#[test]
fn an_authority_that_is_yet_to_be_made_has_signed_nothing() {
    let said = |host: &Fake| {
        let module = module(arguments(json!({ "authority": "/new" })), &desk()).unwrap();
        let changes = module.check(host).unwrap().changes;
        let [Change::IssueCertificate(issue)] = changes.as_slice() else { panic!("{changes:?}") };
        issue.reason.clone()
    };
    assert_eq!(said(&issued(&Leaf::default())), "the authority changed");
    assert_eq!(said(&Fake::new().directory("/etc/ssl")), "not there");
}

#[test]
fn applying_converges_and_restores_modes() {
    struct Signing;
    impl Upstream for Signing {
        fn blob(&mut self, _: &Blob) -> Result<Box<dyn std::io::Read + '_>, ModuleError> {
            Err(ModuleError::host("none"))
        }
        fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError> {
            Ok(sign(request, &Leaf::default()))
        }
        fn deliver(&mut self, _: &mut dyn std::io::Read) -> Result<(), ModuleError> {
            Err(ModuleError::host("none"))
        }
    }
    let module = module(arguments(json!({ "owner": "app", "key_mode": "0640" })), &desk()).unwrap();
    let mut host = Fake::new()
        .directory("/etc/ssl")
        .user("app", 1000)
        .file_with("/etc/ssl/app-key.pem", key("ecdsa:p256"), 0o600, 0, 0)
        .at(ISSUED + 600);
    for change in module.check(&host).unwrap().changes {
        host.perform(&change, &mut Signing).unwrap();
    }
    assert_eq!(host.log(), ["certificate /etc/ssl/app.pem", "attributes /etc/ssl/app-key.pem"]);
    assert_eq!(module.check(&host).unwrap().changes, []);
    assert!(host.state()["/etc/ssl/app-key.pem"].starts_with("file 0640 1000:0"), "{:?}", host.state());
    assert!(host.state()["/etc/ssl/app.pem"].starts_with("file 0644 1000:0"), "{:?}", host.state());
    assert_eq!(module.paths(), ["/etc/ssl/app.pem", "/etc/ssl/app-key.pem"].map(std::path::PathBuf::from));
}

#[test]
fn the_controller_is_told_what_it_may_sign() {
    let desk = desk();
    module(arguments(json!({})), &desk).unwrap();
    let expected = desk.expected_signatures();
    assert_eq!(expected.len(), 1);
    assert_eq!(expected[0].authority, std::path::PathBuf::from("/controller/pki"));
    assert_eq!(
        expected[0].specification,
        json!({
            "common_name": "app", "organization": "x", "organizational_unit": null, "country": null, "state": null, "locality": null,
            "sans": ["10.4.7.21", "app.example.com"], "usages": ["digital signature", "key encipherment", "server auth"],
            "key_type": "ecdsa:p256", "lifetime": 8_640_000,
        })
    );
}

#[test]
fn files_of_cfssl_are_the_specification_and_arguments_win() {
    let desk = desk()
        .file("files/csr.json", r#"{ "CN": "k8s-node", "hosts": ["a", "10.0.0.1"], "key": { "algo": "rsa", "size": 2048 }, "names": [{ "C": "CN", "O": "org" }] }"#)
        .file("files/ca-config.json", r#"{ "signing": { "default": { "expiry": "8760h" }, "profiles": { "peer": { "expiry": "20h", "usages": ["signing", "client auth"] } } } }"#);
    let base =
        json!({ "authority": "pki", "path": "/a", "key": "/b", "csr": "csr.json", "profiles_file": "ca-config.json", "profile": "peer" });
    module(base.clone(), &desk).unwrap();
    let mut more = base;
    more.as_object_mut().unwrap().extend(
        json!({ "common_name": "x", "sans": "b", "lifetime": "1h", "country": "DE", "key_type": "ed25519" }).as_object().unwrap().clone(),
    );
    module(more, &desk).unwrap();
    let [from_files, overridden] = desk.expected_signatures().try_into().unwrap();
    let pick = |value: &Value| {
        ["common_name", "organization", "country", "sans", "usages", "key_type", "lifetime"].map(|field| value[field].clone())
    };
    assert_eq!(
        json!(pick(&from_files.specification)),
        json!(["k8s-node", "org", "CN", ["a", "10.0.0.1"], ["digital signature", "client auth"], "rsa:2048", 72_000])
    );
    assert_eq!(
        json!(pick(&overridden.specification)),
        json!(["x", "org", "DE", ["b"], ["digital signature", "client auth"], "ed25519", 3600])
    );
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let cases = [
        (json!({ "path": "ssl/a" }), "`path` is not an absolute path: `ssl/a`", "path"),
        (json!({ "key": "/etc/ssl/app.pem" }), "certificate and key cannot be the same file", "key"),
        (json!({ "authority": "" }), "`authority` is empty", "authority"),
        (json!({ "sans": ["10.4.7.300"] }), "`10.4.7.300` is no DNS name and no IP address", "sans"),
        (json!({ "sans": [""] }), "`` is no DNS name and no IP address", "sans"),
        (json!({ "common_name": "" }), "`common_name` is empty", "common_name"),
        (json!({ "common_name": null, "sans": [] }), "the certificate has neither a common name nor other names", "common_name"),
        (json!({ "country": "China" }), "a country is written with two letters", "country"),
        (json!({ "key_type": "rsa:1024" }), "`rsa:1024` is not a type of key that kplay makes", "key_type"),
        (json!({ "lifetime": "1" }), "`1` is not a length of time", "lifetime"),
        (json!({ "lifetime": "0s" }), "a lifetime is between one second and a hundred years", "lifetime"),
        (
            json!({ "lifetime": "5m" }),
            "a certificate for 300 s would be due at once: it begins 300 s before it is issued, and is issued again 100 s before its end",
            "lifetime",
        ),
        (
            json!({ "lifetime": "1h", "renew_before": "55m" }),
            "a certificate for 3600 s would be due at once: it begins 300 s before it is issued, and is issued again 3300 s before its end",
            "lifetime",
        ),
        (
            json!({ "renew_before": "100d" }),
            "`renew_before` is not shorter than the lifetime: the certificate would be issued each time",
            "renew_before",
        ),
        (json!({ "profile": "peer" }), "`usages` and `profile` exclude each other", "profile"),
        (json!({ "usages": null, "profile": "peer" }), "`profile` names a profile of `profiles_file`, which is not given", "profile"),
        (json!({ "profiles_file": "x" }), "`profiles_file` is given, but no `profile` of it", "profiles_file"),
        (json!({ "csr": "none.json" }), "cannot find `none.json`", "csr"),
    ];
    for (more, message, argument) in cases {
        let error = module(arguments(more.clone()), &desk()).err().unwrap();
        assert_eq!((error.message.as_str(), error.argument.as_deref()), (message, Some(argument)), "{more}");
    }
    assert_eq!(module(arguments(json!({ "usages": null })), &desk()).err().unwrap().message, "it is not said what the certificate is for");
    let refused = |host: &Fake| module(arguments(json!({})), &desk()).unwrap().check(host).unwrap_err().message;
    assert_eq!(refused(&Fake::new()), "there is no directory `/etc/ssl`");
    assert_eq!(refused(&Fake::new().directory("/etc/ssl/app.pem")), "`/etc/ssl/app.pem` is a directory");
}
