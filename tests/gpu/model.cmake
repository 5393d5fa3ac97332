ts_test(test_model_mailbox SOURCES test_model_mailbox.c model_fixture.c LINK ts_engine LABELS gpu threads)
ts_test(test_model_demo SOURCES test_model_demo.c model_fixture.c LINK ts_engine ts_text LABELS gpu slow TIMEOUT 600)
ts_test(test_families SOURCES test_families.c families_fixture.c model_fixture.c LINK ts_engine LABELS gpu)
ts_test(test_families_heads SOURCES test_families_heads.c families_fixture.c model_fixture.c LINK ts_engine ts_text LABELS gpu)
