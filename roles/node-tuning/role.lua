-- Kernel parameters of a machine that carries a control plane: room for connections, and ports that no outgoing connection takes.

return {
  summary = "kernel parameters for machines of a control plane",

  params = {
    node_parameters = {
      type = "map",
      default = {},
      doc = "Further parameters, or other values: `{ [\"vm.swappiness\"] = 1 }`. A parameter that the kernel does not have is an error.",
    },
    reserved_ports = {
      type = "string",
      default = "2379-2380,6443,7443,8443,10250-10259",
      doc = "Ports of the control plane, which the kernel then gives to no outgoing connection. Nothing is reserved when empty.",
    },
    sysctl_file = { type = "string", default = "/etc/sysctl.d/90-kubernetes.conf", doc = "The file that sets them at boot." },
  },

  run = function(host, p)
    local values = {
      -- Connections that wait to be accepted: a proxy that comes back gets all clients at once.
      ["net.core.somaxconn"] = "32768",
      ["net.ipv4.tcp_max_syn_backlog"] = "8192",
      -- A dead peer is noticed in minutes, not in two hours: watches are silent for long.
      ["net.ipv4.tcp_keepalive_time"] = "600",
      ["net.ipv4.tcp_keepalive_intvl"] = "30",
      ["net.ipv4.tcp_keepalive_probes"] = "10",
    }
    if p.reserved_ports ~= "" then
      values["net.ipv4.ip_local_reserved_ports"] = p.reserved_ports
    end
    for name, value in pairs(p.node_parameters) do
      values[name] = tostring(value)
    end
    host:sysctl({ values = values, file = p.sysctl_file }, { tags = "system" })
  end,
}
