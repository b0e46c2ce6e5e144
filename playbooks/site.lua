-- A highly available control plane, from empty machines to a cluster behind its shared address. Each part is a playbook of its own
-- and can be run alone.
--
--   kplay playbooks/site.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/site.lua -i inventory/hdss7.yaml                   does it
--
-- inventory/hdss7.yaml follows document 001, inventory/k8scloud.yaml 000, inventory/k8s-1-6.yaml 002.

local health = require "health"

require "preflight"
require "nodes"
require "apiserver"
if #health.proxies() > 0 then
  require "proxy"
end
require "controllers"
