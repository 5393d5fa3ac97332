# What relays measure of their links, and what the router knows of them.
ts_test(test_router_links SOURCES test_router_links.c router_fixture.c LINK ts_core_fixture ts_router_core LABELS unit)
