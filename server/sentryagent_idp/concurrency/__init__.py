"""What exists for throughput alone; README.md says what each part was measured to bring."""
