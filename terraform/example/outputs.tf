output "gateway_address" {
  description = "What the host is a CNAME of."
  value       = module.souk.gateway_address
}

output "admin_url" {
  description = "MySQL as its administrator, inside the network."
  value       = module.souk.admin_url
  sensitive   = true
}
