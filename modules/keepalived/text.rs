//! The text of keepalived.conf.

use std::fmt::Display;

use super::{Failback, Instance, Keepalived, Script, State};

/// Returns the whole file.
pub(super) fn render(conf: &Keepalived) -> String {
    let mut file = File("! Configuration File for keepalived\n! Written by kplay (module keepalived).\n".to_owned());
    file.block("global_defs", |file| {
        for (keyword, value) in &conf.global_defs {
            file.line(keyword, value.text());
        }
        // Without these two, scripts run as whoever there is, and `keepalived -t` refuses the file.
        for (keyword, value) in [("enable_script_security", ""), ("script_user", "root")] {
            if !conf.global_defs.contains_key(keyword) {
                file.line(keyword, value);
            }
        }
    });
    for (name, script) in &conf.scripts {
        file.block(&format!("vrrp_script {name}"), |file| script_lines(file, script));
    }
    for (name, instance) in &conf.instances {
        file.block(&format!("vrrp_instance {name}"), |file| instance_lines(file, conf, instance));
    }
    file.0
}

fn script_lines(file: &mut File, script: &Script) {
    file.line("script", format!("\"{}\"", script.script));
    file.line("interval", script.interval);
    for (keyword, value) in [("timeout", script.timeout), ("weight", script.weight), ("fall", script.fall), ("rise", script.rise)] {
        if let Some(value) = value {
            file.line(keyword, value);
        }
    }
}

fn instance_lines(file: &mut File, conf: &Keepalived, instance: &Instance) {
    let state = match conf.state(instance) {
        State::Master => "MASTER",
        State::Backup => "BACKUP",
    };
    file.line("state", state);
    file.line("interface", &instance.interface);
    file.line("virtual_router_id", instance.virtual_router_id);
    file.line("priority", instance.priority);
    file.line("advert_int", instance.advert_int);
    if conf.failback == Failback::Manual {
        file.line("nopreempt", "");
    }
    if let Some(address) = &instance.address {
        file.line(if instance.unicast { "unicast_src_ip" } else { "mcast_src_ip" }, address);
    }
    if instance.unicast {
        file.list("unicast_peer", instance.peers.iter().map(|peer| peer.address.as_str()));
    }
    if let Some(password) = &instance.auth_pass {
        file.inner("authentication", |file| {
            file.inner_line("auth_type", "PASS");
            file.inner_line("auth_pass", password);
        });
    }
    if !instance.track_script.0.is_empty() {
        file.list("track_script", instance.track_script.0.iter().map(String::as_str));
    }
    file.list("virtual_ipaddress", instance.virtual_ipaddress.0.iter().map(String::as_str));
}

/// A file that grows by lines and blocks.
struct File(String);

impl File {
    fn block(&mut self, head: &str, body: impl FnOnce(&mut Self)) {
        self.0 += &format!("\n{head} {{\n");
        body(self);
        self.0 += "}\n";
    }

    fn line(&mut self, keyword: &str, value: impl Display) {
        let line = format!("    {keyword} {value}");
        self.0 += line.trim_end();
        self.0 += "\n";
    }

    fn inner(&mut self, head: &str, body: impl FnOnce(&mut Self)) {
        self.0 += &format!("    {head} {{\n");
        body(self);
        self.0 += "    }\n";
    }

    fn inner_line(&mut self, keyword: &str, value: impl Display) {
        self.0 += "    ";
        self.line(keyword, value);
    }

    fn list<'a>(&mut self, head: &str, items: impl Iterator<Item = &'a str>) {
        self.inner(head, |file| items.for_each(|item| file.inner_line(item, "")));
    }
}
