ts_test(test_model_mailbox SOURCES test_model_mailbox.c model_fixture.c LINK ts_engine LABELS gpu threads)
