"""What may vary in a sweep: spaces a person reads and edits, and the types behind them."""
