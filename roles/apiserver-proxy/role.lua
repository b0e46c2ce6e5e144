-- A layer-4 proxy in front of kube-apiservers: nginx with a `stream` block, as document 001 (4.3) sets it up. The file is
-- judged by nginx before it is put in place, and nginx reloads gracefully: connections that are open stay open.

-- Returns the seconds of one of nginx's times: "900s", "15m", "1h", or nil when it is none.
local function seconds(time)
  local number, unit = time:match("^(%d+)([smhd]?)$")
  local factors = { [""] = 1, s = 1, m = 60, h = 3600, d = 86400 }
  return number and math.tointeger(number) * factors[unit]
end

-- Refuses what nginx would take and clients would suffer from.
local function examine(p)
  local known = {}
  for _, upstream in ipairs(p.upstreams) do
    local port = tonumber(upstream:match("^[^%s;{}]+:(%d+)$"))
    assert(port and port >= 1 and port <= 65535, "`upstreams` lists ADDRESS:PORT, such as 10.4.7.21:6443, not `" .. upstream .. "`")
    assert(not known[upstream], "`upstreams` lists `" .. upstream .. "` twice")
    known[upstream] = true
  end
  for _, upstream in ipairs(p.drained) do
    assert(known[upstream], "`drained` names `" .. upstream .. "`, which is none of the upstreams " .. table.concat(p.upstreams, ", "))
  end
  assert(#p.upstreams > #p.drained, "`upstreams` less `drained` leaves no apiserver: every client would be refused")
  local silence = seconds(p.proxy_timeout)
  assert(
    silence and silence >= 600,
    "`proxy_timeout` has to be 600s or more, not `" .. p.proxy_timeout .. "`: watches and `kubectl exec` are silent for minutes"
  )
end

-- Fails when an nginx runs that systemd does not know of, and says what to do. Such a one, started by hand with `nginx`, holds
-- the port, and neither a reload nor a restart of the unit reaches it.
local outside_its_unit = [[
look() {
  strays=
  for process in /proc/[0-9]*; do
    # One that has ended has no program any more.
    read -r name < "$process/comm" && [ "$name" = nginx ] && readlink "$process/exe" && groups=$(cat "$process/cgroup") || continue
    case $groups in
      */nginx.service*) ;;
      *) strays="$strays ${process#/proc/}" ;;
    esac
  done > /dev/null 2>&1
}
look
[ -n "$strays" ] || exit 0
# One that was only asked to test a file is gone by then.
sleep 1
look
[ -n "$strays" ] || exit 0
echo "nginx runs outside its unit (processes$strays), started by hand with \`nginx\`: systemd can neither reload nor restart it." >&2
echo "Stop it with \`nginx -s quit\` on this host (the VIP moves to the other proxy meanwhile) and run kplay again." >&2
exit 1
]]

-- nginx judges its file wherever it is installed already. A folder that stands for a host has none.
local validate = [[sh -c '[ -z "$KPLAY_ROOT" ] && command -v nginx > /dev/null || exit 0; exec nginx -q -t -c "$1"' sh %s]]

return {
  summary = "nginx as a layer-4 proxy in front of kube-apiservers",

  params = {
    upstreams = { type = "list", required = true, items = { type = "string" }, doc = "The apiservers: `{ \"10.4.7.21:6443\", … }`." },
    drained = {
      type = "list",
      default = {},
      items = { type = "string" },
      doc = "Those of `upstreams` that get no new connections, because they are about to stop.",
    },
    proxy_address = { type = "string", default = "", doc = "Address that it listens on; every address of the host when empty." },
    proxy_port = { type = "integer", default = 7443, doc = "Port that it listens on." },
    max_fails = { type = "integer", default = 3, doc = "Failed attempts within `fail_timeout` after which an upstream is left out." },
    fail_timeout = { type = "string", default = "30s", doc = "For how long it is left out." },
    proxy_connect_timeout = { type = "string", default = "2s", doc = "How long an upstream may take to accept a connection." },
    proxy_timeout = {
      type = "string",
      default = "1h",
      doc = "After how long without a byte in either direction a connection is cut. Watches and `kubectl exec` are silent for long.",
    },
    so_keepalive = { type = "string", default = "60s:15s:4", doc = "TCP keepalive towards clients, `IDLE:INTERVAL:COUNT`: frees what dead clients held." },
    worker_connections = { type = "integer", default = 4096, doc = "Connections per worker; a client takes two." },
    worker_shutdown_timeout = {
      type = "string",
      default = "1h",
      doc = "How long workers with an old configuration keep the connections that they have.",
    },
    http = {
      type = "boolean",
      default = false,
      doc = "Whether the web sites in /etc/nginx/conf.d and /etc/nginx/sites-enabled are served, too.",
    },
    nginx_conf = { type = "string", default = "/etc/nginx/nginx.conf", doc = "nginx's configuration." },
    steps = {
      type = "list",
      default = { "configure", "install", "serve", "check" },
      items = { type = "string", choices = { "configure", "install", "serve", "check" } },
      doc = "What is done: `configure` writes nginx's configuration, `install` installs it, `serve` runs the service, `check` waits for its port.",
    },
    timeout = { type = "integer", default = 30, doc = "Seconds within which the port has to be open." },
  },

  run = function(host, p)
    local steps = {}
    for _, step in ipairs(p.steps) do
      steps[step] = true
    end
    examine(p)

    if steps.configure then
      host:command(
        { command = "sh -s", stdin = outside_its_unit, reads_only = true },
        { name = "nginx runs in its unit alone", tags = "system" }
      )
      host:template({ src = "nginx.conf.j2", dest = p.nginx_conf, mode = "0644", parents = true, validate = validate })
    end
    if steps.install then
      host:package({ name = { "nginx-light", "libnginx-mod-stream" } }, { tags = "system" })
    end
    if steps.serve then
      host:systemd({ name = "nginx", enabled = true, state = "started", reload_on = { p.nginx_conf } }, { tags = "system" })
    end
    if steps.check then
      local address = p.proxy_address ~= "" and p.proxy_address or nil
      host:wait_for({ port = p.proxy_port, host = address, served_by = "nginx", timeout = p.timeout }, { tags = "system" })
    end
  end,
}
