"""Pages in a headless Chromium, where there is one."""
