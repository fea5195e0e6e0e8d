"""What proposes trials and what stops them."""
