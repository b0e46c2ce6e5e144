//! The controller, stage by stage in the order data flows: Config, Inventory, Plan, wire Request and Response, Event.

pub mod diagnostic;
pub mod report;
pub mod transport;
pub mod yaml;
