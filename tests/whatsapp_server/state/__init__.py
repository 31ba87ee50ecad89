"""The state of the simulated WhatsApp: accounts, phones, groups and files. Only this process's memory holds it."""
