# What relays measure of their links, and what the router knows of them.
ts_test(test_router_links SOURCES test_router_links.c router_fixture.c LINK ts_core_fixture ts_router_core LABELS unit)
ts_test(test_relay_links SOURCES test_relay_links.c relay_fixture.c LINK ts_core_fixture ts_relay_core m LABELS unit)
ts_test(test_relay_measure SOURCES test_relay_measure.c LINK ts_relay_core m LABELS unit)
