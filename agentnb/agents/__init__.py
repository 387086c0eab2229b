"""What an agent is: Python functions, the local model, and the templates of their inputs."""
