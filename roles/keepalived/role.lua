-- An address that moves between proxies: keepalived with a check of the proxy's port, as document 001 sets it up in 4.3.

-- Says `same` when a configuration file has these settings, on which proxies have to agree to hear each other, `other` when it has
-- other ones, nothing when there is none. The password comes by the environment.
local agrees = [[
[ -f "$1" ] || exit 0
found=$(awk '$1 ~ /^(virtual_router_id|advert_int|auth_pass)$/ { print $1, $2 } $1 == "unicast_peer" { print $1 }' "$1" | sort)
wanted=$(printf '%s\n' "virtual_router_id $2" "advert_int $3" ${PASSWORD:+"auth_pass $PASSWORD"} $4 | sort)
[ "$found" = "$wanted" ] && echo same || echo other
]]

return {
  summary = "keepalived: one address that the proxies hold in turn",

  params = {
    vip = { type = "string", required = true, doc = "The address that one of the proxies holds." },
    interface = { type = "string", required = true, doc = "Network interface of the proxies." },
    virtual_router_id = { type = "integer", required = true, doc = "Number of the virtual router, 1 to 255, used by nobody else on the link." },
    address = { type = "string", required = true, doc = "Address of this proxy." },
    priority = { type = "integer", required = true, doc = "1 to 254, different on each proxy; the highest is the preferred one." },
    peers = {
      type = "list",
      required = true,
      items = { type = "map" },
      doc = "The other proxies: `{ { address = \"10.4.7.12\", priority = 90 } }`.",
    },
    unicast = { type = "boolean", default = false, doc = "Whether proxies talk to each other alone, instead of to the multicast group." },
    auth_pass = { type = "string", default = "", secret = true, doc = "Password of the announcements, at most 8 characters; none when empty." },
    failback = {
      type = "string",
      default = "manual",
      choices = { "manual", "automatic" },
      doc = "`manual` leaves the address where it is when the preferred proxy is well again, `automatic` gives it back.",
    },
    weight = {
      type = "integer",
      default = -20,
      doc = "With `automatic`: what a proxy whose port is closed loses of its priority. More than the distance to the next priority.",
    },
    proxy_port = { type = "integer", default = 7443, doc = "Port that has to be open on a proxy that holds the address." },
    check_interval = {
      type = "integer",
      doc = "Seconds between two looks at the port. 2 by default; with `automatic` 1, since the other proxy then has to miss three "
        .. "announcements besides.",
    },
    advert_int = { type = "integer", default = 1, doc = "Seconds between announcements, the same on all proxies." },
    keepalived_folder = { type = "string", default = "/etc/keepalived", doc = "Folder of the configuration." },
    steps = {
      type = "list",
      default = { "configure", "install", "serve", "check" },
      items = { type = "string", choices = { "agrees", "configure", "install", "serve", "check" } },
      doc = "What is done: `configure` writes files, `install` installs the package, `serve` runs the service, `check` looks whether it runs. "
        .. "`agrees`, by itself, returns whether a service that runs hears announcements of this configuration; nil when none runs.",
    },
    timeout = { type = "integer", default = 30, doc = "Seconds within which the service has to run." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    local conf, check = p.keepalived_folder .. "/keepalived.conf", p.keepalived_folder .. "/check_port.sh"

    if steps.agrees then
      local unit = host:systemd(
        { name = "keepalived", state = "started", reload_on = { conf }, only_look = true },
        { name = "does keepalived run with today's files?", tags = "system" }
      )
      if unit.skipped or unit.state ~= "active" then
        return nil
      end
      local seen = host:command({
        command = {
          "sh", "-s", "--", conf, string.format("%d", p.virtual_router_id), string.format("%d", p.advert_int), p.unicast and "unicast_peer" or "",
        },
        stdin = agrees,
        env = { PASSWORD = p.auth_pass },
        reads_only = true,
      }, { name = "do proxies hear each other when they have different files?", tags = "system" })
      -- What a file says that has not been read yet is not what is announced.
      return unit.pending == nil and seen.stdout == "same\n"
    end

    if steps.configure then
      host:copy({ src = "check_port.sh", dest = check, mode = "0755", parents = true })
      host:keepalived({
        dest = conf,
        failback = p.failback,
        global_defs = { router_id = p.address },
        scripts = {
          chk_nginx = {
            script = check .. " " .. p.proxy_port,
            interval = p.check_interval or p.failback == "automatic" and 1 or 2,
            weight = p.failback == "automatic" and p.weight or nil,
          },
        },
        instances = {
          VI_1 = {
            interface = p.interface,
            virtual_router_id = p.virtual_router_id,
            priority = p.priority,
            advert_int = p.advert_int,
            address = p.address,
            peers = p.peers,
            unicast = p.unicast,
            auth_pass = p.auth_pass ~= "" and p.auth_pass or nil,
            track_script = "chk_nginx",
            virtual_ipaddress = p.vip,
          },
        },
      })
    end
    if steps.install then
      host:package({ name = "keepalived" }, { tags = "system" })
    end
    if steps.serve then
      -- A reload keeps the address where it is; a restart would move it.
      host:systemd({ name = "keepalived", enabled = true, state = "started", reload_on = { conf } }, { tags = "system" })
    end
    if steps.check then
      host:wait_for({ unit = "keepalived", state = "active", timeout = p.timeout }, { tags = "system" })
    end
  end,
}
