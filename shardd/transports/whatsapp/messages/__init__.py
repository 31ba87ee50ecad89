"""What is sent, to whom, what the answers mean, and what people write back."""
