"""What Apple, Google and Expo run: the push services, and the phones that they reach."""
