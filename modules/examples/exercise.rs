//! Exercises the real host by hand.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]
use kplay_modules::api::*;
use std::io::Read;
struct No;
impl Upstream for No {
    fn blob(&mut self, _b: &Blob) -> Result<Box<dyn Read + '_>, ModuleError> {
        Err(ModuleError::host("no"))
    }
    fn sign(&mut self, _: &[u8]) -> Result<String, ModuleError> {
        Err(ModuleError::host("no"))
    }
    fn deliver(&mut self, _: &mut dyn Read) -> Result<(), ModuleError> {
        Err(ModuleError::host("no"))
    }
}
fn main() {
    let t = std::time::Instant::now();
    let mut m = Machine::new(None, Machine::state_folder(None), "run-x");
    eprintln!("new: {:?}", t.elapsed());
    let args: Vec<String> = std::env::args().skip(1).collect();
    let t = std::time::Instant::now();
    match args[0].as_str() {
        "facts" => println!("{:#?}", m.facts()),
        "unit" => {
            for n in &args[1..] {
                println!("{:#?}", m.unit(n))
            }
        }
        "packages" => println!("{:?}", m.packages(&args[1..])),
        "user" => println!("{:?}", m.user(&args[1])),
        "do" => {
            for a in &args[1..] {
                let c: Change = serde_json::from_str(a).unwrap();
                let t = std::time::Instant::now();
                println!("inverse: {:?}", m.invert(&c));
                let r = m.perform(&c, &mut No);
                println!("{:?} -> {:#?}", t.elapsed(), r);
            }
        }
        _ => panic!(),
    }
    eprintln!("{:?}", t.elapsed());
}
