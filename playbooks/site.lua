-- A highly available control plane, from empty machines to a cluster behind its shared address. Each part is a playbook of its own
-- and can be run alone.
--
--   kplay playbooks/site.lua -i inventory/hdss7.yaml --check --diff    says what it would do
--   kplay playbooks/site.lua -i inventory/hdss7.yaml                   does it
--
-- inventory/hdss7.yaml follows document 001, inventory/k8scloud.yaml 000, inventory/k8s-1-6.yaml 002.

require "preflight"
require "nodes"
require "apiserver"
require "proxy"
require "controllers"
