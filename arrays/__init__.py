"""The same job from Python, on arrays: what `import quietscope as qs` offers."""
