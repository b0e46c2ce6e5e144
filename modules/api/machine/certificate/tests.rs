//! Certificates for keys that are made on the host.

use std::cell::RefCell;
use std::io::Read;

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};

use super::super::tests::{Bench, attributes};
use super::*;
use crate::api::change::Change;
use crate::api::inspect::Inspect;
use crate::api::perform::Perform;
use crate::api::types::Blob;

/// An authority that signs what it is asked, or something else when it `lies`.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    lies: bool,
    asked: RefCell<u32>,
}

impl Authority {
    fn new(lies: bool) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: Issuer::new(params, KeyPair::generate().unwrap()), lies, asked: RefCell::new(0) }
    }
}

impl Upstream for Authority {
    fn blob(&mut self, _blob: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        Err(ModuleError::host("there are no blobs"))
    }

    fn sign(&mut self, request: &[u8]) -> Result<String, ModuleError> {
        *self.asked.borrow_mut() += 1;
        if self.lies {
            let params = CertificateParams::default();
            return Ok(params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().pem());
        }
        let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        Ok(request.signed_by(&self.issuer).unwrap().pem())
    }

    fn deliver(&mut self, _content: &mut dyn Read) -> Result<(), ModuleError> {
        Err(ModuleError::host("nothing is fetched"))
    }
}

fn issue(new_key: bool) -> Change {
    Change::IssueCertificate(IssueCertificate {
        certificate: "/pki/a.pem".into(),
        key: "/pki/a-key.pem".into(),
        key_type: "ecdsa:p256".into(),
        new_key,
        common_name: "a".into(),
        reason: String::new(),
        certificate_attributes: attributes(0o644),
        key_attributes: attributes(0o600),
        certificate_before: None,
        key_before: None,
    })
}

#[test]
fn a_key_is_made_and_kept_when_the_certificate_is_renewed() {
    let mut bench = Bench::new();
    bench.write("/pki/other", "");
    let mut authority = Authority::new(false);
    bench.machine.perform(&issue(true), &mut authority).unwrap();
    let (key, first) = (bench.text("/pki/a-key.pem"), bench.text("/pki/a.pem"));
    verify(&first, &key, "a").unwrap();
    let mode = |path: &str| bench.machine.entry(path.as_ref()).unwrap().unwrap().attributes;
    assert_eq!((mode("/pki/a-key.pem"), mode("/pki/a.pem")), (attributes(0o600), attributes(0o644)));

    bench.machine.perform(&issue(false), &mut authority).unwrap();
    assert_eq!(bench.text("/pki/a-key.pem"), key);
    assert_ne!(bench.text("/pki/a.pem"), first);
    assert_eq!(*authority.asked.borrow(), 2);
}

#[test]
fn a_certificate_for_another_key_replaces_nothing() {
    let mut bench = Bench::new();
    bench.write("/pki/a.pem", "old").write("/pki/a-key.pem", "old key");
    let before = bench.picture();
    let error = bench.machine.perform(&issue(true), &mut Authority::new(true)).unwrap_err();
    assert!(error.message.ends_with("is for another key"), "{error}");
    assert_eq!(bench.picture(), before);
    let error = bench.machine.perform(&issue(false), &mut Authority::new(false)).unwrap_err();
    assert!(error.message.contains("private key"), "{error}");
}
