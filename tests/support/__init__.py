"""What the tests share: builders of records, fakes, and servers on loopback."""
