//! The controller, stage by stage in the order data flows: Config, Inventory, Plan, wire Request and Response, Event.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they need"))]

pub mod blobs;
pub mod cli;
pub mod command;
pub mod config;
pub mod controller;
pub mod diagnostic;
pub mod files;
pub mod inventory;
pub mod lab;
pub mod lua;
pub mod outputs;
pub mod pki;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod secrets;
pub mod services;
pub mod template;
pub mod transport;
pub mod vault;
pub mod yaml;
