"""What leaves the process for WhatsApp: the gate, its tunnels, and the proxies behind it."""
